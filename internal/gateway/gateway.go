package gateway

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
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
	Log           *slog.Logger // nil means none
}

// Gateway opens a Job for each run of an agent. It may be used by several
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
	c.Models = slices.Clone(c.Models)
	for i, m := range c.Models {
		c.Models[i], _, _ = strings.Cut(m, "[")
	}
	return &Gateway{config: c}
}

// Open starts to listen for one job, which may use maxTokens; zero means any
// number. Calls end when ctx does; the job has to be closed all the same.
func (g *Gateway) Open(ctx context.Context, maxTokens int64) (*Job, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open gateway: %w", err)
	}
	j := &Job{
		URL: "http://" + listener.Addr().String(), Token: rand.Text(),
		config: g.config,
		tokens: account{most: maxTokens},
		slots:  make(chan struct{}, g.config.MaxConcurrent),
		served: make(chan struct{}),
		transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout: dialTimeout,
			ForceAttemptHTTP2:   true,
			DisableCompression:  true, // the answer passes as it is
		},
	}
	j.proxy = &httputil.ReverseProxy{
		Rewrite:        j.rewrite,
		Transport:      signing{signer: g.config.Signer, next: j.transport},
		FlushInterval:  -1,
		ModifyResponse: j.modify,
		ErrorHandler:   j.failed,
		ErrorLog:       slog.NewLogLogger(g.config.Log.Handler(), slog.LevelDebug),
	}
	ctx, j.cancel = context.WithCancel(ctx)
	j.server = &http.Server{
		Handler:           j,
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(g.config.Log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(j.served)
		_ = j.server.Serve(listener) // it ends with Close, or nobody is answered
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
