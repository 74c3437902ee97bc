package queue_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// transport stands in for the network in tests of timing, which run in a bubble of
// synctest: an HTTP client that answers calls of SQS and remembers when they came.
// Any queue exists; it delivers what is put into messages.
type transport struct {
	messages chan map[string]any

	mu     sync.Mutex
	calls  []call
	answer answer // nil, or status 0: as usual
}

type answer func(call) (status int, body any, err error)

// answers says how calls are answered from now on.
func (f *transport) answers(a answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = a
}

type call struct {
	at    time.Time
	op    string
	input map[string]any
	ctx   context.Context //nolint:containedctx // for answer, which may hang
}

// seconds is a parameter that is a time.
func (c call) seconds(name string) time.Duration {
	return time.Duration(c.input[name].(float64) * float64(time.Second))
}

func newTransport() *transport { return &transport{messages: make(chan map[string]any, 100)} }

func (f *transport) client() *sqs.Client {
	return sqs.New(sqs.Options{
		Region: "us-east-1", HTTPClient: f, DisableMessageChecksumValidation: true,
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
}

// put delivers a message that was received before as often as said.
func (f *transport) put(id string, receives int) {
	f.messages <- map[string]any{
		"MessageId": id, "ReceiptHandle": "receipt-" + id, "Body": "body",
		"Attributes": map[string]any{"ApproximateReceiveCount": fmt.Sprint(receives), "SentTimestamp": "1760000000123"},
	}
}

// of returns the calls of an operation.
func (f *transport) of(op string) []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	var some []call
	for _, c := range f.calls {
		if c.op == op {
			some = append(some, c)
		}
	}
	return some
}

func (f *transport) Do(r *http.Request) (*http.Response, error) {
	c := call{at: time.Now(), ctx: r.Context(), op: strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")}
	if err := json.NewDecoder(r.Body).Decode(&c.input); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.calls = append(f.calls, c)
	answer := f.answer
	f.mu.Unlock()
	if answer != nil {
		if status, body, err := answer(c); status != 0 || err != nil {
			return respond(r, status, body), err
		}
	}
	return f.usual(r, c)
}

func (f *transport) usual(r *http.Request, c call) (*http.Response, error) {
	switch c.op {
	case "GetQueueUrl":
		return respond(r, http.StatusOK, map[string]any{"QueueUrl": "https://sqs.example/1/" + c.input["QueueName"].(string)}), nil
	case "SendMessage":
		return respond(r, http.StatusOK, map[string]any{"MessageId": "sent"}), nil
	case "ReceiveMessage":
		wait := time.NewTimer(c.seconds("WaitTimeSeconds"))
		defer wait.Stop()
		select {
		case m := <-f.messages:
			return respond(r, http.StatusOK, map[string]any{"Messages": []any{m}}), nil
		case <-wait.C:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	return respond(r, http.StatusOK, map[string]any{}), nil
}

func respond(r *http.Request, status int, body any) *http.Response {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &http.Response{
		StatusCode: status, Request: r, Body: io.NopCloser(bytes.NewReader(text)), ContentLength: int64(len(text)),
		Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
	}
}

// failure is the body of an error.
func failure(code, message string) map[string]any {
	return map[string]any{"__type": "com.amazonaws.sqs#" + code, "message": message}
}

// hang answers nothing until the caller gives up.
func hang(c call) (int, any, error) {
	<-c.ctx.Done()
	return 0, nil, c.ctx.Err()
}

// all returns all calls, ops their operations.
func (f *transport) all() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]call(nil), f.calls...)
}

func (f *transport) ops() []string {
	var ops []string
	for _, c := range f.all() {
		ops = append(ops, c.op)
	}
	return ops
}
