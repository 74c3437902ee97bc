package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// TestWaitingIsTold: a call is answered when somebody was told that it is not, one is
// refused again and again, and a receive may take its time.
func TestWaitingIsTold(t *testing.T) {
	told := make(chan string, 10)
	var outage atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/x-amz-json-1.0")
		switch r.Header.Get("X-Amz-Target") {
		case "AmazonSQS.ListQueues":
			select {
			case line := <-told:
				told <- line
			case <-r.Context().Done():
			}
		case "AmazonSQS.GetQueueUrl":
			if outage.Load() {
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
		case "AmazonSQS.ReceiveMessage":
			<-time.After(50 * time.Millisecond)
		}
		rw.Write([]byte("{}")) //nolint:errcheck // the client may be gone
	}))
	t.Cleanup(server.Close)
	w := &waiting{after: 10 * time.Millisecond, note: func(format string, args ...any) { told <- fmt.Sprintf(format, args...) }}
	client := sqs.New(sqs.Options{
		Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
		RetryMaxAttempts: 1, HTTPClient: server.Client(),
	}, func(o *sqs.Options) { o.APIOptions = append(o.APIOptions, w.add) })

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := client.ListQueues(ctx, &sqs.ListQueuesInput{}); err != nil {
		t.Error(err)
	}
	if _, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: aws.String(server.URL)}); err != nil {
		t.Error(err)
	}
	outage.Store(true)
	for began := time.Now(); time.Since(began) < 100*time.Millisecond; {
		if _, err := client.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("q")}); err == nil {
			t.Error("an outage is an answer")
		}
	}
	for _, want := range []string{"ListQueues", "GetQueueUrl"} {
		select {
		case got := <-told:
			if got != "SQS has not answered "+want+" yet; still waiting" {
				t.Errorf("told %q, want it of %s", got, want)
			}
		case <-ctx.Done():
			t.Errorf("of %s nothing was told", want)
		}
	}
	if len(told) > 0 {
		t.Errorf("told besides: %q", <-told)
	}
}
