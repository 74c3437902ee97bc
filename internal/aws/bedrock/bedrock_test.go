package bedrock

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"go.uber.org/goleak"

	"github.com/webordinary/claude-code-container/internal/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	accessKey = "AKIDEXAMPLE"
	secretKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	session   = "session-token-of-the-test"
	region    = "eu-central-1"
)

// verify computes a request's signature anew, from what came over the wire and
// the secret alone, as the service does. It shares no code with the signer.
func verify(r *http.Request, body []byte) error {
	auth, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return fmt.Errorf("authorization %q", r.Header.Get("Authorization"))
	}
	parts := map[string]string{}
	for p := range strings.SplitSeq(auth, ", ") {
		name, value, _ := strings.Cut(p, "=")
		parts[name] = value
	}
	when := r.Header.Get("X-Amz-Date")
	scope := strings.Join([]string{when[:8], region, "bedrock", "aws4_request"}, "/")
	if parts["Credential"] != accessKey+"/"+scope {
		return fmt.Errorf("credential %q, want scope %q", parts["Credential"], scope)
	}
	names := strings.Split(parts["SignedHeaders"], ";")
	for _, must := range []string{"host", "x-amz-date", "x-amz-security-token"} {
		if !slices.Contains(names, must) {
			return fmt.Errorf("%s is not signed: %q", must, names)
		}
	}
	var headers strings.Builder
	for _, name := range names {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(r.ContentLength)
		}
		headers.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	sum := sha256.Sum256(body)
	canonical := strings.Join([]string{r.Method, escape(path), r.URL.RawQuery, headers.String(), parts["SignedHeaders"], hex.EncodeToString(sum[:])}, "\n")
	hash := sha256.Sum256([]byte(canonical))
	key := []byte("AWS4" + secretKey)
	for p := range strings.SplitSeq(scope, "/") {
		key = sign(key, p)
	}
	want := hex.EncodeToString(sign(key, strings.Join([]string{"AWS4-HMAC-SHA256", when, scope, hex.EncodeToString(hash[:])}, "\n")))
	if parts["Signature"] != want {
		return fmt.Errorf("signature %s, want %s for\n%s", parts["Signature"], want, canonical)
	}
	return nil
}

func sign(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// escape is the service's own: all but the unreserved characters and slashes.
func escape(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func testSigner() *Signer {
	return NewSigner(Options{Region: region, Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, session)})
}

// TestSignatureThroughTheGateway checks what arrives at the service, with the
// credentials of the worker and nothing of the agent's.
func TestSignatureThroughTheGateway(t *testing.T) {
	const arn = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/abc"
	tests := map[string]struct{ base, model, path string }{
		"a model":               {"", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1:0/invoke"},
		"a stream":              {"", "anthropic.claude-x", "/model/anthropic.claude-x/invoke-with-response-stream"},
		"an escaped colon":      {"", "anthropic.claude-x-v1:0", "/model/anthropic.claude-x-v1%3A0/invoke"},
		"an ARN":                {"", arn, "/model/" + url.PathEscape(arn) + "/invoke"},
		"behind a path":         {"/proxy/eu", "anthropic.claude-x", "/model/anthropic.claude-x/invoke"},
		"an ARN behind a path":  {"/proxy", arn, "/model/" + url.PathEscape(arn) + "/invoke"},
		"a path with a blank":   {"/my%20proxy", "anthropic.claude-x", "/model/anthropic.claude-x/invoke"},
		"a path with an escape": {"/a%2Fb", "anthropic.claude-x-v1:0", "/model/anthropic.claude-x-v1%3A0/invoke"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			const body = `{"anthropic_version":"bedrock-2023-05-31","messages":[]}`
			came := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				came++
				b, _ := io.ReadAll(r.Body)
				if err := verify(r, b); err != nil {
					t.Error(err)
				}
				if r.RequestURI != tt.base+tt.path || string(b) != body {
					t.Errorf("came as %s %q, want path %s", r.RequestURI, b, tt.base+tt.path)
				}
				if r.Header.Get("X-Amz-Security-Token") != session || r.Header.Get("X-Api-Key") != "" || r.Header.Get("X-Amzn-Bedrock-Trace") != "" {
					t.Errorf("headers %v", r.Header)
				}
				_, _ = io.WriteString(w, "{}")
			}))
			defer server.Close()
			upstream, err := url.Parse(server.URL + tt.base)
			if err != nil {
				t.Fatal(err)
			}
			g := gateway.New(gateway.Config{Upstream: upstream, Signer: testSigner(), Bedrock: true, Models: []string{tt.model}})
			j, err := g.Open(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, j.URL+tt.path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+j.Token)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept-Encoding", "gzip, br")
			r.Header.Set("X-Amz-Security-Token", "the agent's")
			r.Header.Set("X-Amzn-Bedrock-Trace", "ENABLED")
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != 200 || came != 1 {
				t.Errorf("status %d, came %d times", resp.StatusCode, came)
			}
		})
	}
}

// TestCredentialsAreAskedForEachCall is how they are refreshed.
func TestCredentialsAreAskedForEachCall(t *testing.T) {
	asked := 0
	s := NewSigner(Options{
		Region: region, Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			asked++
			return aws.Credentials{AccessKeyID: fmt.Sprint("key", asked), SecretAccessKey: "x"}, nil
		}),
	})
	for i := 1; i <= 2; i++ {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://service/model/m/invoke", strings.NewReader("body"))
		if err := s.Sign(r); err != nil {
			t.Fatal(err)
		}
		if got := r.Header.Get("Authorization"); !strings.Contains(got, fmt.Sprintf("Credential=key%d/20260102/eu-central-1/bedrock/aws4_request", i)) {
			t.Errorf("authorization %q", got)
		}
		if b, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(b, []byte("body")) {
			t.Errorf("the body is %q, %v", b, err)
		}
	}
}

func TestNoCredentials(t *testing.T) {
	away := errors.New("the metadata service is away")
	for name, provider := range map[string]aws.CredentialsProvider{
		"none": nil,
		"fail": aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, away }),
		"empty": aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "only this"}, nil
		}),
	} {
		s := NewSigner(Options{Region: region, Credentials: provider})
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://service/model/m/invoke", nil)
		if s.Check(t.Context()) == nil || s.Sign(r) == nil || r.Header.Get("Authorization") != "" {
			t.Errorf("%s: taken for credentials", name)
		}
	}
	if err := testSigner().Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEndpoint(t *testing.T) {
	for region, want := range map[string]string{
		"us-west-2": "https://bedrock-runtime.us-west-2.amazonaws.com", "cn-north-1": "https://bedrock-runtime.cn-north-1.amazonaws.com.cn",
	} {
		if got := Endpoint(region).String(); got != want {
			t.Errorf("%s: got %s, want %s", region, got, want)
		}
	}
}

func ExampleSigner() {
	s := NewSigner(Options{Region: "us-west-2", Credentials: credentials.NewStaticCredentialsProvider("AKID", "secret", "")})
	g := gateway.New(gateway.Config{Upstream: Endpoint("us-west-2"), Signer: s, Bedrock: true})
	j, err := g.Open(context.Background(), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer j.Close()
	fmt.Println(j.Token != "")
	// Output: true
}
