package deploy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultGrace   = 24 * time.Hour
	defaultWorkers = 32
	maxRounds      = 3   // looks at a bucket that somebody else writes to
	deleteBatch    = 500 // keys in one Delete
)

// Options say what to deploy and how.
type Options struct {
	Dir string // the build
	// Grace is how long hashed assets of earlier builds stay; zero means 24 h,
	// a negative one that they go at once.
	Grace time.Duration
	// Retired is Result.Retired of the deploy before, nil if it is not known;
	// see Keep.
	Retired map[string]time.Time
	// State is Result.State of the deploy before, nil if it is not known.
	State *State
	// Undisturbed says that the Sync that returned State had no error and that
	// nobody has written to the bucket since. Then the bucket is not listed,
	// unless the last listing is an hour old.
	Undisturbed bool
	// Rules is the HeaderRules that every object of a former build was put
	// under, zero if it is not known. Objects whose headers the bucket does not
	// tell are uploaded again if it is not the present one.
	Rules int
	// Workers is how many files are uploaded at once; zero means 32.
	Workers int
	// Begin, if there, is called once, while the build is read, and has returned
	// before the bucket is looked at. Its error ends the deploy, and is returned as
	// it is unless the build cannot be read.
	Begin func(ctx context.Context) error
	// BeforePages, if there, is called exactly once, when all that pages need
	// is up and no page was touched, also when no page changes. Its error ends
	// the deploy there, with no page changed, and is returned wrapped.
	BeforePages func(ctx context.Context) error
	Now         func() time.Time // the clock; nil means time.Now
}

// Result is what a deploy did.
type Result struct {
	Uploaded, Deleted, Unchanged int // files
	Bytes                        int64
	Duration                     time.Duration
	// Retired are the assets of earlier builds that stay, and since when they
	// have not been part of the build. It is to be kept for the next Sync,
	// also after an error.
	Retired map[string]time.Time
	// State is for the next Sync, also after an error.
	State *State
}

// Sync makes the bucket hold the build in o.Dir, and hashed assets of earlier
// builds younger than the grace. It may be ended at any moment: pages served
// meanwhile find their assets, and the next Sync completes what is missing. The
// context is looked at before each call of the bucket.
//
// Errors are *Error, the cause of ctx, or what Begin or BeforePages returned.
func Sync(ctx context.Context, b Bucket, o Options) (Result, error) {
	o = o.withDefaults()
	began := o.Now()
	trusting := o.Undisturbed && o.State != nil && began.Sub(o.State.Listed) < relist
	s := scanner{withMD5: !trusting, known: o.State.byKey()}
	if err := s.scanBeside(ctx, o.Dir, o.Begin); err != nil {
		return Result{Retired: o.Retired, State: o.State}, err
	}
	root, err := openBuild(o.Dir)
	if err != nil {
		return Result{Retired: o.Retired, State: o.State}, err
	}
	defer root.Close() //nolint:errcheck // it was only read from
	d := &deployment{bucket: b, options: o, root: root, bodies: s.bodies, trusting: trusting, memory: s.known, put: map[string]Object{}}
	for round := 1; ; round++ {
		err = d.round(ctx, s.files)
		if !errors.Is(err, ErrPrecondition) || round == maxRounds {
			break
		}
	}
	result := d.result(o.Now().Sub(began))
	if err != nil {
		result.Retired, result.State = stillRetired(o.Retired, s.files), d.hints()
		return result, err
	}
	result.State = d.state(s.files)
	return result, nil
}

// scanBeside reads the build while something else is done.
func (s *scanner) scanBeside(ctx context.Context, dir string, do func(context.Context) error) error {
	if do == nil {
		return s.scan(ctx, dir)
	}
	var beside sync.WaitGroup
	var err error
	beside.Go(func() { err = do(ctx) })
	scanErr := s.scan(ctx, dir)
	beside.Wait()
	return cmp.Or(scanErr, err)
}

// stillRetired is what is known after a deploy that was cut off: pages of the
// build before it may still be served, so nothing more is retired, and pages of
// its own, so nothing of it is.
func stillRetired(retired map[string]time.Time, files []File) map[string]time.Time {
	out := maps.Clone(retired)
	for _, f := range files {
		delete(out, f.Key)
	}
	return out
}

func (o Options) withDefaults() Options {
	if o.Grace == 0 {
		o.Grace = defaultGrace
	}
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// deployment is one Sync under way.
type deployment struct {
	bucket  Bucket
	options Options
	root    *os.Root
	bodies  map[string][]byte // contents that are at hand, by key

	// Owned by the goroutine of Sync.
	announced bool // BeforePages was called
	trusting  bool // the next look is at what is remembered
	deleted   int
	last      Changes
	listed    time.Time
	found     map[string]Object // by the last look
	memory    map[string]Object // what the State of the options says

	mu  sync.Mutex
	put map[string]Object // by this Sync

	// Counted by the workers.
	uploaded, bytes atomic.Int64
}

// round looks at the bucket and makes the changes; when somebody else has
// changed an object in between, it ends with ErrPrecondition.
func (d *deployment) round(ctx context.Context, files []File) error {
	objects, err := d.look(ctx)
	if err != nil {
		return err
	}
	d.last = Plan(files, objects, Keep{Grace: d.options.Grace, Now: d.options.Now(), Retired: d.options.Retired})
	steps := []func() error{
		func() error { return d.upload(ctx, d.last.Assets) },
		func() error { return d.upload(ctx, d.last.Files) },
		func() error { return d.announce(ctx) },
		func() error { return d.upload(ctx, d.last.Pages) },
		func() error { return d.remove(ctx, d.last.DeletePages) },
		func() error { return d.remove(ctx, d.last.Delete) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (d *deployment) announce(ctx context.Context) error {
	if d.announced || d.options.BeforePages == nil {
		return nil
	}
	if ctx.Err() != nil {
		return failed(ctx, "before the pages", ctx.Err())
	}
	d.announced = true
	if err := d.options.BeforePages(ctx); err != nil {
		return fmt.Errorf("before the pages: %w", err)
	}
	return nil
}

// upload uploads files, several at once. It returns when no upload is under way
// any more; the first error ends the others.
func (d *deployment) upload(ctx context.Context, uploads []Upload) error {
	err := each(ctx, len(uploads), d.options.Workers, func(ctx context.Context, i int) error {
		return d.uploadOne(ctx, uploads[i])
	})
	if err != nil {
		return failed(ctx, "upload", err)
	}
	return nil
}

func (d *deployment) uploadOne(ctx context.Context, u Upload) error {
	body, err := d.open(u.File.Key)
	if err != nil {
		return &Error{Code: CodeFailed, Message: "read the build", Err: err}
	}
	defer body.Close() //nolint:errcheck // it was only read from
	o := u.File.object()
	o.Modified = d.options.Now()
	o.ETag, err = d.bucket.Put(ctx, o, body, u.If)
	if err != nil {
		return failed(ctx, fmt.Sprintf("upload %q", u.File.Key), err)
	}
	d.mu.Lock()
	d.put[o.Key] = o
	d.mu.Unlock()
	d.uploaded.Add(1)
	d.bytes.Add(u.File.Size)
	return nil
}

// open returns the content of a file. What changed since it was first read is
// refused by the bucket, which is told its hash.
func (d *deployment) open(key string) (io.ReadSeekCloser, error) {
	if body, ok := d.bodies[key]; ok {
		return kept{bytes.NewReader(body)}, nil
	}
	return openFile(d.root, filepath.FromSlash(key))
}

// kept is content in memory.
type kept struct{ *bytes.Reader }

// Close implements io.Closer.
func (kept) Close() error { return nil }

func (d *deployment) remove(ctx context.Context, keys []string) error {
	for len(keys) > 0 {
		batch := keys[:min(len(keys), deleteBatch)]
		if ctx.Err() != nil {
			return failed(ctx, "delete old files", ctx.Err())
		}
		if err := d.bucket.Delete(ctx, batch...); err != nil {
			return failed(ctx, "delete old files", err)
		}
		d.deleted += len(batch)
		keys = keys[len(batch):]
	}
	return nil
}

func (d *deployment) result(took time.Duration) Result {
	return Result{
		Uploaded:  int(d.uploaded.Load()),
		Deleted:   d.deleted,
		Unchanged: d.last.Unchanged,
		Bytes:     d.bytes.Load(),
		Duration:  took,
		Retired:   d.last.Retired,
	}
}
