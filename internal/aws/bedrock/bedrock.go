// Package bedrock signs model calls to Amazon Bedrock with the worker's own
// credentials, for the gateway that stands between it and an agent.
package bedrock

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// service is the name that requests are signed for.
const service = "bedrock"

// Options says how to sign. Region is required.
type Options struct {
	Region string
	// Credentials are asked for each call; the SDK's, which keep and refresh
	// them. Nil means that there are none.
	Credentials aws.CredentialsProvider
	Now         func() time.Time // nil means time.Now
}

// Signer signs requests by AWS's Signature Version 4. It may be used by several
// goroutines.
type Signer struct {
	options Options
	signer  *v4.Signer
}

// NewSigner returns a signer. It asks for no credentials yet.
func NewSigner(o Options) *Signer {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Signer{options: o, signer: v4.NewSigner()}
}

// Endpoint is where a region's models are called.
func Endpoint(region string) *url.URL {
	domain := "amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		domain = "amazonaws.com.cn"
	}
	return &url.URL{Scheme: "https", Host: "bedrock-runtime." + region + "." + domain}
}

// Check reports whether there are credentials. It does not ask Bedrock whether
// they are good for anything; some have to be fetched, which ctx bounds.
func (s *Signer) Check(ctx context.Context) error {
	_, err := s.credentials(ctx)
	return err
}

// Sign adds the signature of a request, and what belongs to it. The body is read
// and put back.
func (s *Signer) Sign(r *http.Request) error {
	credentials, err := s.credentials(r.Context())
	if err != nil {
		return err
	}
	var body []byte
	if r.Body != nil {
		body, err = io.ReadAll(r.Body)
		if err := errors.Join(err, r.Body.Close()); err != nil {
			return fmt.Errorf("read the body to sign it: %w", err)
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	sum := sha256.Sum256(body)
	if err := s.signer.SignHTTP(r.Context(), credentials, r, hex.EncodeToString(sum[:]), service, s.options.Region, s.options.Now()); err != nil {
		return fmt.Errorf("sign a call of Bedrock: %w", err)
	}
	return nil
}

func (s *Signer) credentials(ctx context.Context) (aws.Credentials, error) {
	if s.options.Credentials == nil {
		return aws.Credentials{}, errors.New("no AWS credentials are configured")
	}
	c, err := s.options.Credentials.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("get AWS credentials: %w", err)
	}
	if !c.HasKeys() {
		return aws.Credentials{}, errors.New("the AWS credentials are empty")
	}
	return c, nil
}
