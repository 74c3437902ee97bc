// Package emulators runs what the tests have instead of AWS: an SQS, Amazon's own
// DynamoDB Local, and an S3 that serves websites too. All listen on loopback
// alone, and die with the process that started them, however it dies. `make
// setup` installs them.
//
// A package of tests says Main in its TestMain and Shared in its tests.
package emulators

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Variable is the environment variable that names running emulators: a Set in
// JSON. Where it is set, Shared uses them and starts none.
const Variable = "WEBORDINARY_EMULATORS"

// What every client of the emulators uses. S3 checks them, the others do not.
const (
	Region    = "us-east-1"
	AccessKey = "emulator"
	SecretKey = "emulator-secret"
)

// Set is a set of running emulators, each with the URL of its endpoint.
type Set struct {
	SQS      string `json:"sqs"`
	DynamoDB string `json:"dynamodb"`
	S3       string `json:"s3"`
	// Website serves the buckets to browsers: the Host header names the bucket.
	Website string `json:"website"`

	transport *http.Transport
	running   *running // nil if somebody else runs them
}

// Options says how to start. Its zero value works.
type Options struct {
	// Root is the module's directory; by default the one that holds the
	// working directory.
	Root string
	// Port is the first of the four that are used, in the order of Set; zero
	// means that free ones are chosen.
	Port int
	// Within is how long the start may take; zero means a minute.
	Within time.Duration
}

// errEnded says that an emulator ended by itself.
var errEnded = errors.New("ended by itself")

// Start starts a set and returns when every emulator has answered. ctx bounds the
// start alone; Close ends the set.
func Start(ctx context.Context, o Options) (*Set, error) {
	tools, err := findTools(o.Root)
	if err != nil {
		return nil, err
	}
	if o.Within == 0 {
		o.Within = time.Minute
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Within, fmt.Errorf("not ready within %s", o.Within))
	defer cancel()
	// Another program may take a port between the choice and the start.
	for range 3 {
		var set *Set
		if set, err = start(ctx, tools, o.Port); err == nil || !errors.Is(err, errEnded) {
			return set, err
		}
	}
	return nil, err
}

func start(ctx context.Context, tools tools, first int) (*Set, error) {
	r, err := newRunning(ctx, tools, first)
	if err != nil {
		return nil, err
	}
	s := &Set{transport: newTransport(), running: r}
	urls := []*string{&s.SQS, &s.DynamoDB, &s.S3, &s.Website}
	for i, port := range r.ports {
		*urls[i] = "http://" + port.address()
	}
	if err := s.launch(ctx, tools); err != nil {
		s.Close() //nolint:errcheck // the first error counts
		return nil, err
	}
	return s, nil
}

// launch starts the programs and waits until each has answered.
func (s *Set) launch(ctx context.Context, tools tools) error {
	for _, p := range tools.programs(s.running.dir, s.running.ports) {
		if err := s.running.start(ctx, p); err != nil {
			return err
		}
	}
	for _, c := range s.running.children {
		if err := s.await(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// Close ends what Start started, and waits for it. Its error says which emulator
// had ended before, and what it said.
func (s *Set) Close() error {
	s.transport.CloseIdleConnections()
	if s.running == nil {
		return nil
	}
	return s.running.stop()
}

// Attach returns the set that somebody else runs, from the value of Variable.
func Attach(value string) (*Set, error) {
	s := &Set{transport: newTransport()}
	if err := json.Unmarshal([]byte(value), s); err != nil {
		return nil, fmt.Errorf("%s is not a set of emulators: %w", Variable, err)
	}
	return s, nil
}

// String returns what Attach takes.
func (s *Set) String() string {
	b, err := json.Marshal(s)
	if err != nil {
		return err.Error() // four strings always encode
	}
	return string(b)
}

// Environ returns the variables by which a program of ours uses the set.
func (s *Set) Environ() []string {
	return []string{
		"AWS_ENDPOINT_URL_SQS=" + s.SQS,
		"AWS_ENDPOINT_URL_DYNAMODB=" + s.DynamoDB,
		"AWS_ENDPOINT_URL_S3=" + s.S3,
		"AWS_REGION=" + Region,
		"AWS_ACCESS_KEY_ID=" + AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + SecretKey,
		"AWS_EC2_METADATA_DISABLED=true",
		"S3_FORCE_PATH_STYLE=true",
	}
}

// newTransport goes straight to loopback, past every proxy.
func newTransport() *http.Transport {
	return &http.Transport{DialContext: (&net.Dialer{}).DialContext, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute}
}

// moduleRoot finds the directory with go.mod above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
	}
}
