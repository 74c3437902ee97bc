package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/tests/gitserver"
	"github.com/webordinary/claude-code-container/tests/platform/site"
)

// watch is somebody who looks at a site all the time.
type watch struct {
	bucket string

	mu     sync.Mutex
	pages  int
	broken []string
}

// Watch looks at a project's site all the time, as a browser does: a page, then the
// assets it names. Check tells what was broken.
func (p *Platform) Watch(j *Project, every time.Duration) {
	w, h := &watch{bucket: j.Bucket}, &p.history
	h.mu.Lock()
	h.watched = append(h.watched, w)
	h.mu.Unlock()
	h.readers.Go(func() {
		again := time.NewTicker(every)
		defer again.Stop()
		for n := 0; ; n++ {
			select {
			case <-again.C:
			case <-h.reading.Done():
				return
			}
			w.look(p, []string{"/", "/about/"}[n%2])
		}
	})
}

func (w *watch) look(p *Platform, path string) {
	status, page, err := p.Page(w.bucket, path)
	if err != nil || status != http.StatusOK {
		return // nothing is there yet, or the test is over
	}
	broken := ""
	for _, key := range site.Assets(page) {
		if status, _, err := p.Page(w.bucket, "/"+key); err == nil && status != http.StatusOK {
			broken = fmt.Sprintf("%s at %s names %s: %d", path, time.Now().Format(time.TimeOnly), key, status)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pages++
	if broken != "" {
		w.broken = append(w.broken, broken)
	}
}

// Page asks for a page of a bucket's website.
func (p *Platform) Page(bucket, path string) (int, string, error) {
	ctx, cancel := context.WithTimeout(p.history.reading, callTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.Set.Website+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	req.Host = bucket
	res, err := p.Set.HTTPClient().Do(req)
	if err != nil {
		return 0, "", err
	}
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), errors.Join(err, res.Body.Close())
}

func (p *Platform) checkPages(r *Report) {
	p.tb.Helper()
	p.history.mu.Lock()
	watched := p.history.watched
	p.history.mu.Unlock()
	for _, w := range watched {
		w.mu.Lock()
		r.Pages += w.pages
		for _, b := range w.broken {
			p.tb.Errorf("a broken page in %s: %s", w.bucket, b)
		}
		w.mu.Unlock()
	}
}

// checkSites compares each bucket with what the last command sent for it made. One
// that was delayed may be the last instead.
func (p *Platform) checkSites() {
	p.tb.Helper()
	last := map[string][]*Command{}
	for _, c := range p.Commands() {
		if b := c.Project.Bucket; c.Late {
			last[b] = append(last[b], c)
		} else {
			last[b] = append(slices.DeleteFunc(last[b], func(c *Command) bool { return !c.Late }), c)
		}
	}
	for bucket, candidates := range last {
		var wrong string
		for _, c := range candidates {
			branch := threadOf{c.Project, c.Thread}.branch()
			content := gitserver.Git(p.tb, p.Git.Bare(c.Project.Repo), "show", branch+":"+site.Content) + "\n"
			wrong = differ(p.objects(bucket), site.Build(content))
			if wrong == "" {
				break
			}
		}
		if wrong != "" {
			p.tb.Errorf("%s is not what %s made: %s", bucket, candidates[len(candidates)-1].ID, wrong)
		}
	}
}

// differ says how a bucket differs from a build; empty if it does not. Assets of
// earlier builds stay for a while.
func differ(objects, build map[string]string) string {
	for key := range objects {
		if _, ok := build[key]; !ok && strings.HasPrefix(key, "_astro/") {
			delete(objects, key)
		}
	}
	return cmp.Diff(build, objects)
}

// objects reads a whole bucket.
func (p *Platform) objects(bucket string) map[string]string {
	p.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	all := map[string]string{}
	pages := s3.NewListObjectsV2Paginator(p.s3, &s3.ListObjectsV2Input{Bucket: &bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			p.tb.Fatalf("list %s: %v", bucket, err)
		}
		for _, o := range page.Contents {
			out, err := p.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: o.Key})
			if err != nil {
				p.tb.Fatalf("read %s in %s: %v", aws.ToString(o.Key), bucket, err)
			}
			body, err := io.ReadAll(out.Body)
			if err := errors.Join(err, out.Body.Close()); err != nil {
				p.tb.Fatal(err)
			}
			all[aws.ToString(o.Key)] = string(body)
		}
	}
	return all
}
