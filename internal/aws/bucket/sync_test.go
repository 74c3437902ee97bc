package bucket_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/internal/aws/bucket"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/deploy/deploytest"
	"github.com/webordinary/claude-code-container/tests/emulators"
)

// build is a site whose pages all name one style sheet, as most do.
func build(pages int, version string) site {
	css := fmt.Sprintf("_astro/style.VERSION%s.css", version)
	s := site{css: "/* " + version + " */", "robots.txt": version, "logo.svg": "<svg/>", "only-" + version + ".html": "x"}
	for i := range pages {
		s[fmt.Sprintf("p%02d/index.html", i)] = "page\n" + css + "\n"
	}
	s["index.html"] = "home\n" + css + "\n"
	return s
}

// broken names an asset that a page wants and the site lacks.
func broken(s site) string {
	for key, content := range s {
		if !strings.HasSuffix(key, ".html") {
			continue
		}
		for line := range strings.Lines(content) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "_astro/") && s[line] == "" {
				return key + " wants " + line
			}
		}
	}
	return ""
}

func mustSync(t *testing.T, b deploy.Bucket, s site, o deploy.Options) deploy.Options {
	t.Helper()
	o.Dir = s.write(t)
	r, err := deploy.Sync(t.Context(), b, o)
	if err != nil {
		t.Fatalf("sync: %v", err)
	}
	return next(o, r)
}

// next is what the Sync after one without error is told.
func next(o deploy.Options, r deploy.Result) deploy.Options {
	o.State, o.Retired, o.Undisturbed, o.Rules = r.State, r.Retired, true, deploy.HeaderRules
	return o
}

// An edit costs one request for each object that changes, and one for all
// deletes; no change costs none.
func TestSyncCountsItsRequests(t *testing.T) {
	b, p, name := behindProxy(t, bucket.Options{})
	client := connect(t, gateway(t), true)
	o := mustSync(t, b, build(20, "1"), deploy.Options{Grace: -1})
	for _, step := range []struct {
		name  string
		build site
		want  int
	}{
		{"no change", build(20, "1"), 0},
		{"an edit of all pages", build(20, "2"), 24 + 2}, // 20 pages, home, robots.txt, a style sheet, a page of its own; a page and files to delete
		{"no change again", build(20, "2"), 0},
	} {
		p.arm(nil)
		o = mustSync(t, b, step.build, o)
		if got := p.seen(); len(got) != step.want {
			t.Errorf("%s: %d requests, want %d: %v", step.name, len(got), step.want, got)
		}
		if diff := cmp.Diff(step.build, contents(t, client, name)); diff != "" {
			t.Errorf("%s: bucket (-want +got):\n%s", step.name, diff)
		}
	}
	p.arm(nil)
	o.State, o.Undisturbed = nil, false
	mustSync(t, b, build(20, "2"), o)
	if diff := cmp.Diff([]string{"GET ?encoding-type"}, p.seen()); diff != "" {
		t.Errorf("nothing remembered: requests (-want +got):\n%s", diff)
	}
}

// Uploads share connections that stay open between deploys.
func TestSyncKeepsItsConnectionsWarm(t *testing.T) {
	p := startProxy(t)
	client := connect(t, gateway(t), true)
	warm := bucket.NewClient(aws.Config{
		Region: emulators.Region, Credentials: client.Options().Credentials, BaseEndpoint: &p.URL, // and the HTTP client of the SDK
	}, true)
	own, known := warm.Options().HTTPClient.(*awshttp.BuildableClient)
	if !known || own.GetTransport().MaxIdleConnsPerHost < 32 {
		t.Errorf("of 32 connections some are closed when the uploads end (%T)", warm.Options().HTTPClient)
	}
	b := bucket.Open(warm, create(t, client), bucket.Options{})
	o := mustSync(t, b, build(200, "1"), deploy.Options{})
	mustSync(t, b, build(200, "2"), o)
	// The transport dials a few too many when it is slow to hand one back.
	if got := p.opened.Load(); got > 80 {
		t.Errorf("%d connections for 400 uploads, 32 at once", got)
	}
}

// A connection that was closed meanwhile costs no whole handshake.
func TestSyncResumesHandshakes(t *testing.T) {
	resumed := make(chan bool, 4)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resumed <- r.TLS.DidResume
		w.Header().Set("Connection", "close")
		w.Header().Set("ETag", `"e"`)
	}))
	t.Cleanup(server.Close)
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	client := bucket.NewClient(aws.Config{
		Region: emulators.Region, Credentials: credentials.NewStaticCredentialsProvider("a", "s", ""), BaseEndpoint: &server.URL,
		HTTPClient: awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		}),
	}, true)
	b := bucket.Open(client, "site", bucket.Options{})
	for i, want := range []bool{false, true, true} {
		if _, err := b.Put(t.Context(), deploytest.Object("a.txt", "x"), strings.NewReader("x"), deploy.Condition{}); err != nil {
			t.Fatal(err)
		}
		if got := <-resumed; got != want {
			t.Errorf("connection %d: resumed %t", i, got)
		}
	}
}

// The ETag of an upload in parts is no MD5.
func TestSyncOverAnObjectPutInParts(t *testing.T) {
	b, p, name := behindProxy(t, bucket.Options{})
	client := connect(t, gateway(t), true)
	up, err := client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &name, Key: aws.String("index.html")})
	if err != nil {
		t.Fatal(err)
	}
	part, err := client.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: &name, Key: aws.String("index.html"), UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("home"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &name, Key: aws.String("index.html"), UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: part.ETag, PartNumber: aws.Int32(1)}}},
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 1} { // a listing and an upload, then a listing
		p.arm(nil)
		mustSync(t, b, site{"index.html": "home"}, deploy.Options{Rules: deploy.HeaderRules})
		if got := p.seen(); len(got) != want {
			t.Errorf("requests %v, want %d", got, want)
		}
	}
}

// Somebody changed what is remembered.
func TestSyncRepairsAfterAForeignDeploy(t *testing.T) {
	b, p, name := behindProxy(t, bucket.Options{})
	client := connect(t, gateway(t), true)
	o := mustSync(t, b, build(3, "1"), deploy.Options{Grace: -1})
	theirs := bucket.Open(client, name, bucket.Options{})
	mustSync(t, theirs, build(5, "9"), deploy.Options{Grace: -1})
	p.arm(nil)
	mustSync(t, b, build(3, "2"), o)
	if !slices.Contains(p.seen(), "GET ?encoding-type") {
		t.Errorf("no listing in %v", p.seen())
	}
	if diff := cmp.Diff(build(3, "2"), contents(t, client, name)); diff != "" {
		t.Errorf("bucket (-want +got):\n%s", diff)
	}
}

// A deploy that ends at any request, whether or not that one was carried out,
// leaves every page with its assets, and the next one heals it.
func TestSyncCutAtEachRequest(t *testing.T) {
	t.Parallel()
	const pages = 6
	for name, remembers := range map[string]bool{"remembered": true, "listed": false} {
		for _, carriedOut := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, carried out %t", name, carriedOut), func(t *testing.T) {
				t.Parallel()
				b, p, name := behindProxy(t, bucket.Options{})
				client := connect(t, gateway(t), true)
				o := mustSync(t, b, build(pages, "0"), deploy.Options{Grace: -1, Workers: 3})
				for n, whole := 1, false; !whole; n++ {
					before, after := o, build(pages, fmt.Sprint(n))
					if !remembers {
						before.State, before.Undisturbed = nil, false
					}
					whole = !cutAt(t, b, p, n, carriedOut, after, &before)
					if missing := broken(contents(t, client, name)); missing != "" {
						t.Fatalf("cut at request %d: %s", n, missing)
					}
					o = mustSync(t, b, after, before)
					if diff := cmp.Diff(after, contents(t, client, name)); diff != "" {
						t.Fatalf("healed after a cut at request %d (-want +got):\n%s", n, diff)
					}
					if n > 50 {
						t.Fatal("the deploy has no end")
					}
				}
			})
		}
	}
}

// cutAt deploys until the n-th request and reports whether there was one. o is
// then what the next deploy is told.
func cutAt(t *testing.T, b deploy.Bucket, p *proxy, n int, carriedOut bool, s site, o *deploy.Options) bool {
	t.Helper()
	errKilled := errors.New("killed")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	p.arm(func(p *proxy, _ http.ResponseWriter, r *http.Request, i int) bool {
		if i < n {
			return false
		}
		cancel(errKilled)
		p.cut(r.WithContext(context.WithoutCancel(r.Context())), carriedOut && i == n)
		return true
	})
	o.Dir = s.write(t)
	r, err := deploy.Sync(ctx, b, *o)
	p.settle()
	p.arm(nil)
	*o = next(*o, r)
	o.Undisturbed = err == nil
	if err != nil && !errors.Is(err, errKilled) {
		t.Fatalf("cut at request %d: %v", n, err)
	}
	return err != nil
}

// A visitor who reads all the time finds the assets of every page.
func TestVisitorsSeeWholePagesDuringDeploys(t *testing.T) {
	const pages = 12
	client := connect(t, gateway(t), true)
	name := create(t, client)
	b := bucket.Open(client, name, bucket.Options{})
	o := mustSync(t, b, build(pages, "0"), deploy.Options{})
	var done atomic.Bool
	var looks atomic.Int64
	var visitors sync.WaitGroup
	for v := range 3 {
		visitors.Go(func() {
			for i := v; !done.Load(); i++ {
				page := fmt.Sprintf("p%02d/index.html", i%pages)
				_, body, there := get(t, client, name, page)
				if !there {
					t.Errorf("%s is gone", page)
					return
				}
				asset := strings.Fields(string(body))[1]
				if _, _, there := get(t, client, name, asset); !there {
					t.Errorf("%s wants %s, which is not there", page, asset)
					return
				}
				looks.Add(1)
			}
		})
	}
	for version := range 10 {
		o = mustSync(t, b, build(pages, fmt.Sprint(version%3)), o)
	}
	done.Store(true)
	visitors.Wait()
	if looks.Load() < 20 {
		t.Errorf("only %d looks", looks.Load())
	}
}
