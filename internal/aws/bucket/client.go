package bucket

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	// connections are kept open between deploys: more than a deploy has
	// uploads at once, so that none waits for a handshake.
	connections = 64
	dialTimeout = 5 * time.Second
)

// NewClient returns a client with as many warm connections as a deploy needs.
// With pathStyle the bucket's name is always in the path; else only where it must
// be, as S3 has no certificate for a host whose first label holds dots.
//
// An HTTP client of cfg that is not the SDK's own buildable one is used as it is.
func NewClient(cfg aws.Config, pathStyle bool) *s3.Client {
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = pathStyle
		if cfg.HTTPClient == nil {
			o.HTTPClient = tune(awshttp.NewBuildableClient())
		}
		if own, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
			o.HTTPClient = tune(own) // it knows AWS_CA_BUNDLE
		}
	})
}

func tune(c *awshttp.BuildableClient) aws.HTTPClient {
	return c.WithDialerOptions(func(d *net.Dialer) {
		d.Timeout = dialTimeout
	}).WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = connections, connections
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		// S3 closes connections sooner than we do. New ones then resume what the
		// old ones had agreed on.
		t.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(connections)
	})
}
