package workspace

import (
	"context"
	"errors"
	"fmt"
	"io"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/client"
)

// errMoved says that the remote's branch is not where it was expected.
var errMoved = errors.New("the remote's branch has moved")

// anywhere is for a branch that is ours alone: where the remote has it does not
// matter.
const anywhere = "anywhere"

// pushRef pushes one branch as it is here, if the remote has it at theirs, or not
// at all if that is empty; else the error is errMoved. If the remote has it as it is
// here, there is nothing to do.
//
// go-git's own push looks through all that either side has. This one sends what
// lies between the commits of ours and those that the remote says it has.
func (w *Workspace) pushRef(ctx context.Context, branch, theirs string) error {
	err := w.send(ctx, branch, theirs)
	switch {
	case err == nil || errors.Is(err, errMoved):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return w.remoteError(ctx, err)
	}
	return &Error{Code: "push_failed", Reason: "the branch " + branch + " could not be pushed", Err: err}
}

func (w *Workspace) send(ctx context.Context, branch, theirs string) (err error) {
	repo, err := w.repository()
	if err != nil {
		return err
	}
	ref, err := repo.Reference(headRef(branch), true)
	if err != nil {
		return fmt.Errorf("read branch: %w", err)
	}
	session, err := w.receivePack()
	if err != nil {
		return err
	}
	defer session.Close() //nolint:errcheck // the report says what came of it
	refs, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		return fmt.Errorf("ask the remote for its branches: %w", err)
	}
	old := refs.References[ref.Name().String()]
	switch {
	case old == ref.Hash():
		return nil
	case theirs != anywhere && old != plumbing.NewHash(theirs):
		return errMoved
	}
	request := packp.NewReferenceUpdateRequestFromCapabilities(refs.Capabilities)
	request.Commands = []*packp.Command{{Name: ref.Name(), Old: old, New: ref.Hash()}}
	haves, err := has(repo, refs)
	if err != nil {
		return err
	}
	objects, err := missing(repo.Storer, ref.Hash(), haves)
	if err == nil && isSmall(repo.Storer, objects) {
		err = deliver(ctx, session, request, pack(repo.Storer, objects, !refs.Capabilities.Supports(capability.OFSDelta)))
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return w.sendByGit(ctx, ref, old) // which asks what the remote lacks
}

// has is what the remote has: what it says, and what came from it.
func has(repo *git.Repository, refs *packp.AdvRefs) (map[plumbing.Hash]bool, error) {
	all := map[plumbing.Hash]bool{}
	for _, h := range refs.References {
		all[h] = true
	}
	cut, err := repo.Storer.Shallow()
	if err != nil {
		return nil, fmt.Errorf("read where the history is cut: %w", err)
	}
	for _, h := range cut {
		all[h] = true
	}
	known, err := repo.References()
	if err != nil {
		return nil, fmt.Errorf("read branches: %w", err)
	}
	return all, known.ForEach(func(r *plumbing.Reference) error {
		if r.Name().IsRemote() {
			all[r.Hash()] = true
		}
		return nil
	})
}

// maxPack is how many bytes of objects are sent from memory.
const maxPack = 32 << 20

func isSmall(s storer.EncodedObjectStorer, objects []plumbing.Hash) bool {
	var sum int64
	for _, h := range objects {
		size, err := s.EncodedObjectSize(h)
		if sum += size; err != nil || sum > maxPack {
			return false
		}
	}
	return true
}

// sendByGit has the git program send what is large; it keeps it on disk.
func (w *Workspace) sendByGit(ctx context.Context, ref *plumbing.Reference, old plumbing.Hash) error {
	expect := ""
	if !old.IsZero() {
		expect = old.String()
	}
	name := ref.Name().String()
	_, err := w.gitWith(ctx, w.header(), "push", "--quiet", "--no-verify", "--force-with-lease="+name+":"+expect, w.url, ref.Hash().String()+":"+name)
	return err
}

func (w *Workspace) receivePack() (transport.ReceivePackSession, error) {
	endpoint, err := transport.NewEndpoint(w.url)
	if err != nil {
		return nil, fmt.Errorf("read the remote's address: %w", err)
	}
	c, err := client.NewClient(endpoint)
	if err != nil {
		return nil, err
	}
	return c.NewReceivePackSession(endpoint, w.auth())
}

// pack writes objects one after the other: as they are, so that none is held in
// memory for the sake of another.
func pack(s storer.Storer, objects []plumbing.Hash, refDeltas bool) io.ReadCloser {
	r, out := io.Pipe()
	go func() {
		_, err := packfile.NewEncoder(out, s, refDeltas).Encode(objects, 0)
		out.CloseWithError(err)
	}()
	return r
}

func deliver(ctx context.Context, session transport.ReceivePackSession, request *packp.ReferenceUpdateRequest, objects io.ReadCloser) error {
	defer objects.Close() //nolint:errcheck // it ends the writer
	request.Packfile = objects
	status, err := session.ReceivePack(ctx, request)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if status == nil {
		return nil
	}
	return status.Error()
}
