package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/journal"
)

// rememberedFile holds what the last deploy out of a workspace left in its bucket: a
// line with the Site, as the journal got it after the deploy, in JSON, and the State.
// It may be lost or stale: the journal's Site, which all workers share, says whether
// it was the last deploy of all.
func (j *job) rememberedFile() string { return filepath.Join(j.cache, "bucket.json") }

// recallBucket returns what is remembered of the bucket, nil if nothing is, and whether
// nobody has deployed to it since.
func (j *job) recallBucket(ctx context.Context, site journal.Site) (state *deploy.State, undisturbed bool) {
	raw, err := os.ReadFile(j.rememberedFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, false
	}
	var was journal.Site
	line, rest, _ := bytes.Cut(raw, []byte("\n"))
	if err == nil {
		err = json.Unmarshal(line, &was)
	}
	if err == nil {
		state, err = deploy.DecodeState(rest)
	}
	switch {
	case err != nil:
		j.h.log().WarnContext(ctx, "what a bucket holds is not remembered", slog.String("error", err.Error()))
		return nil, false
	case was.Bucket != site.Bucket:
		return nil, false
	}
	return state, isSameDeploy(was, site) && !j.h.now().Before(site.Doubt)
}

// isSameDeploy compares by the time too: a command may be deployed more than once.
func isSameDeploy(a, b journal.Site) bool {
	return a.Complete && b.Complete && a.CommandID == b.CommandID && a.Commit == b.Commit && a.Deployed.Equal(b.Deployed)
}

// rememberBucket is for the next deploy. Without it that one lists the bucket.
func (j *job) rememberBucket(ctx context.Context, site journal.Site, state *deploy.State) {
	if state == nil {
		return
	}
	raw, err := state.Encode()
	var line []byte
	if err == nil {
		site.Retired = nil // the journal has it
		line, err = json.Marshal(site)
	}
	if err == nil {
		err = replaceFile(j.rememberedFile(), slices.Concat(line, []byte("\n"), raw))
	}
	if err != nil {
		j.h.log().WarnContext(ctx, "what a bucket holds is not remembered", slog.String("error", err.Error()))
	}
}

// replaceFile writes a file whole or not at all. It may get lost in a crash of
// the machine.
func replaceFile(path string, body []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
