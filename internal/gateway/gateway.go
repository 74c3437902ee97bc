package gateway

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	defaultMaxBody       = 32 << 20 // what the API takes at most
	defaultMaxConcurrent = 8
	maxErrorBody         = 64 << 10
	maxHeader            = 64 << 10
	dialTimeout          = 10 * time.Second
	headerTimeout        = 10 * time.Second
)

// Signer adds credentials to a request to the model's service. It may be called
// by several goroutines. It may read the body if it puts it back.
type Signer interface {
	Sign(r *http.Request) error
}

// APIKey signs with a key of the Anthropic API.
func APIKey(key string) Signer { return apiKey(key) }

type apiKey string

// Sign implements Signer.
func (k apiKey) Sign(r *http.Request) error {
	r.Header.Set("X-Api-Key", string(k))
	return nil
}

// Config says where calls go and what they may cost.
type Config struct {
	// Upstream is the model's service; a path stands in front of the call's
	// own. Nil means https://api.anthropic.com, and has to be set for Bedrock.
	Upstream *url.URL
	Signer   Signer
	// Bedrock takes Bedrock's calls instead of the Anthropic API's.
	Bedrock bool
	// Models are the ids of the models that may be called; a suffix in
	// brackets, as in "[1m]", is the CLI's and does not count. With none, the
	// first call of a job for an answer chooses: it is made by the CLI before
	// anything that the model or the repository says is run. For Bedrock that is
	// the first streaming call, as the CLI asks other models before whether they
	// are there.
	Models []string
	// MaxBody bounds a request, in bytes; zero means 32 MB.
	MaxBody int64
	// MaxConcurrent bounds the calls of a job that run at the same time; zero
	// means 8. One more is answered with 429.
	MaxConcurrent int
	// Hosts are what children may reach besides the model.
	Hosts Hosts
	// Resolve looks up the addresses of a name; nil means the system's way.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	// Proxy says by which proxy the worker reaches a host, as in
	// http.Transport; nil means what the environment says.
	Proxy func(*http.Request) (*url.URL, error)
	Log   *slog.Logger // nil means none
}

// Gateway opens a Job for each run of a child. It may be used by several
// goroutines.
type Gateway struct {
	config Config
}

// New returns a gateway. It opens nothing yet.
func New(c Config) *Gateway {
	if c.Upstream == nil {
		c.Upstream = &url.URL{Scheme: "https", Host: "api.anthropic.com"}
	}
	if c.MaxBody == 0 {
		c.MaxBody = defaultMaxBody
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = defaultMaxConcurrent
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Resolve == nil {
		c.Resolve = func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		}
	}
	if c.Proxy == nil {
		c.Proxy = http.ProxyFromEnvironment
	}
	c.Models = slices.Clone(c.Models)
	for i, m := range c.Models {
		c.Models[i], _, _ = strings.Cut(m, "[")
	}
	return &Gateway{config: c}
}

// Open starts to listen for one job of an agent, which may use maxTokens of the
// model; zero means any number. Calls and connections end when ctx does; the job
// has to be closed all the same.
func (g *Gateway) Open(ctx context.Context, maxTokens int64) (*Job, error) {
	j := g.newJob()
	j.tokens.most = maxTokens
	j.transport = &http.Transport{
		Proxy:               g.config.Proxy,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true, // the answer passes as it is
	}
	j.proxy = &httputil.ReverseProxy{
		Rewrite:        j.rewrite,
		Transport:      signing{signer: g.config.Signer, next: j.transport},
		FlushInterval:  -1,
		ModifyResponse: j.modify,
		ErrorHandler:   j.failed,
		ErrorLog:       slog.NewLogLogger(g.config.Log.Handler(), slog.LevelDebug),
	}
	return j.listen(ctx)
}

// OpenProxy starts to listen for one job that has to do with no model, such as a
// build. It is closed as one of Open's.
func (g *Gateway) OpenProxy(ctx context.Context) (*Job, error) {
	j := g.newJob()
	return j.listen(ctx)
}

func (g *Gateway) newJob() *Job {
	j := &Job{
		Token:   rand.Text(),
		config:  g.config,
		slots:   make(chan struct{}, g.config.MaxConcurrent),
		tunnels: make(chan struct{}, maxTunnels),
		told:    map[string]bool{},
		served:  make(chan struct{}),
	}
	j.outside = &http.Transport{
		DialContext:            j.outsideDial,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
		IdleConnTimeout:        tunnelIdle,
		MaxIdleConns:           maxTunnels,
	}
	j.forwarding = j.forwarder()
	return j
}

// listen begins to serve a job.
func (j *Job) listen(ctx context.Context) (*Job, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open gateway: %w", err)
	}
	j.Address = listener.Addr().String()
	j.URL = "http://" + j.Address
	ctx, j.cancel = context.WithCancel(ctx)
	j.server = &http.Server{
		Handler:           j,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       tunnelIdle,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(j.config.Log.Handler(), slog.LevelDebug),
	}
	few := fewConnections{Listener: listener, slots: make(chan struct{}, maxConnections), done: ctx.Done()}
	go func() {
		defer close(j.served)
		_ = j.server.Serve(few) // it ends with Close, or nobody is answered
	}()
	return j, nil
}

// signing adds credentials on the way out.
type signing struct {
	signer Signer
	next   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (s signing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if err := s.signer.Sign(r); err != nil {
		if r.Body != nil {
			r.Body.Close() //nolint:errcheck // the first error counts
		}
		return nil, fmt.Errorf("sign model call: %w", err)
	}
	return s.next.RoundTrip(r)
}
