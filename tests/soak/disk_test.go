package soak

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// The bounds, as docs/operations.md has them.
const (
	day           = 24 * time.Hour
	transcripts   = 30 * day
	trees         = 30 * day
	maxTrees      = 2
	maxTreeBytes  = 2 << 30
	downloads     = 30 * day
	maxDownloads  = 2 << 30
	unwritten     = day
	asides        = day
	side          = 30 * day
	maxLoose      = 1000
	maxPacks      = 20
	journalLife   = 30 * day
	assetGrace    = 2 * time.Second
	trimmedAfter  = 30 * inTurn // objects that may come before the next look
	clockDistance = time.Hour
)

// disk is what a pair's directory holds after a visit.
type disk struct {
	answered int
	git      int64 // the repository, which grows with its commits
	rest     int64
}

func measure(dir string) (disk, error) {
	whole, err := sizeOf(dir)
	git, err2 := sizeOf(filepath.Join(dir, "worker", "git"))
	return disk{git: git, rest: whole - git}, errors.Join(err, err2)
}

// sizeOf adds up the sizes of the files below a directory. What goes meanwhile does
// not count.
func sizeOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

// beyond lists what exceeds a bound in a pair's directory, by the kind of it.
func beyond(ctx context.Context, dir string) map[string]string {
	found := map[string]string{}
	older := func(kind, pattern string, than time.Duration) {
		for _, file := range glob(dir, pattern) {
			if info, err := os.Lstat(file); err == nil && time.Since(info.ModTime()) > than {
				found[kind] += " " + file
			}
		}
	}
	older("conversations of 30 days", "worker/conversations/*/*", transcripts)
	older("packages of 30 days", "worker/cache/node_modules-*", trees)
	older("files of a crash of a day", "worker/.new-*", unwritten)
	older("files of a crash of a day", "worker/cache/.new-*", unwritten)
	older("npm's downloads of 30 days", "cache/*", downloads)
	if kept := glob(dir, "worker/cache/node_modules-*"); len(kept) > maxTrees || total(kept) > maxTreeBytes {
		found["packages above 2 trees or 2 GB"] = fmt.Sprint(kept)
	}
	if size, err := sizeOf(filepath.Join(dir, "cache")); err != nil || size > maxDownloads {
		found["npm's downloads above 2 GB"] = fmt.Sprint(size, err)
	}
	for _, aside := range glob(dir+"~aside-*", ".") {
		_, mark, _ := strings.Cut(filepath.Base(aside), "~aside-")
		seconds, _, _ := strings.Cut(mark, "-")
		if since, err := strconv.ParseInt(seconds, 10, 64); err != nil || time.Since(time.Unix(since, 0)) > asides {
			found["directories set aside a day ago"] += " " + aside
		}
	}
	if n := len(glob(dir, "worker/git/objects/[0-9a-f][0-9a-f]/*")); n > maxLoose+trimmedAfter {
		found["more than 1000 loose objects"] = strconv.Itoa(n)
	}
	if n := len(glob(dir, "worker/git/objects/pack/*.pack")); n > maxPacks+inTurn {
		found["more than 20 packs"] = strconv.Itoa(n)
	}
	if out := oldSideBranches(ctx, filepath.Join(dir, "worker", "git")); out != "" {
		found["merged side branches of 30 days"] = out
	}
	return found
}

func glob(dir, pattern string) []string {
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		panic(err) // the patterns are written here
	}
	return files
}

func total(files []string) (size int64) {
	for _, file := range files {
		if info, err := os.Lstat(file); err == nil {
			size += info.Size()
		}
	}
	return size
}

// checkBounds looks at the directories of all projects.
func (s *soak) checkBounds() {
	for _, j := range s.projects {
		for kind, what := range beyond(s.t.Context(), s.dir(j)) {
			s.t.Errorf("%s has %s: %s", j.Key(), kind, what)
		}
	}
}

// checkBuckets: of earlier builds a bucket has only assets that went out of use within
// the grace before the last deploy.
func (s *soak) checkBuckets() {
	client := s.Set.S3Client(s.t)
	deployed := map[string][]time.Time{}
	for _, c := range s.Commands() {
		if all := s.Answers(c.ID); len(all) > 0 {
			deployed[c.Project.Bucket] = append(deployed[c.Project.Bucket], all[0].At)
		}
	}
	for bucket, times := range deployed {
		prefix := "_astro/"
		out, err := client.ListObjectsV2(s.t.Context(), &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
		if err != nil {
			s.t.Fatal(err)
		}
		last := slices.MaxFunc(times, time.Time.Compare)
		recent := slices.DeleteFunc(times, func(at time.Time) bool { return last.Sub(at) > assetGrace+time.Second })
		if n := len(out.Contents); n < 1 || n > len(recent)+1 { // each took one out of use
			s.t.Errorf("%s has %d style sheets, and %d deploys of late", bucket, n, len(recent))
		}
	}
}

// checkJournal: all that is in the table ends by itself, commands after 30 days.
func (s *soak) checkJournal() {
	client := s.Set.DynamoDBClient(s.t)
	pages := dynamodb.NewScanPaginator(client, &dynamodb.ScanInput{TableName: &s.Table})
	for pages.HasMorePages() {
		page, err := pages.NextPage(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		for _, item := range page.Items {
			var ttl dynamodbtypes.AttributeValueMemberN
			if v, ok := item["ttl"].(*dynamodbtypes.AttributeValueMemberN); ok {
				ttl = *v
			}
			seconds, err := strconv.ParseInt(ttl.Value, 10, 64)
			left := time.Until(time.Unix(seconds, 0))
			if err != nil || left <= 0 || left > journalLife+clockDistance {
				s.t.Errorf("item %v of the table ends in %s (%v)", item["projectKey"], left, err)
			}
			s.items++
		}
	}
}
