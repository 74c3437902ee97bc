package queue

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmsqs "github.com/ThreeDotsLabs/watermill-aws/sqs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go/middleware"
)

// subscription is one queue being received from.
type subscription struct {
	*subscriber
	topic, url string
	log        *slog.Logger
	stop       context.CancelFunc // ends receiving
	out        chan *message.Message
	messages   sync.WaitGroup // not settled

	// poll belongs to whoever has the turn: the receive loop of watermill-aws
	// until it hands a message over, forward until it nacks that one.
	poll poll
}

// poll is one receive.
type poll struct {
	raw        *types.Message
	asked      time.Time // before the request
	visibility time.Duration
	end        func(taken int) // of the gate
}

// receiver starts the watermill-aws subscriber below a subscription. It has a client
// of its own, since the gate is a middleware of that client.
func (s *subscription) receiver(ctx context.Context) (*wmsqs.Subscriber, <-chan *message.Message, error) {
	options := s.queues.client.Options()
	options.APIOptions = append(slices.Clip(options.APIOptions), s.gateReceives)
	config := wmsqs.SubscriberConfig{
		AWSConfig:                   aws.Config{Credentials: options.Credentials},
		OptFns:                      []func(*sqs.Options){func(o *sqs.Options) { *o = options }},
		DoNotCreateQueueIfNotExists: true,
		QueueUrlResolver:            wmsqs.TransparentUrlResolver{},
		GenerateReceiveMessageInput: s.receiveInput,
		Unmarshaler:                 unmarshaler(func(raw *types.Message) { s.poll.raw = raw }),
	}
	if config.AWSConfig.Credentials == nil {
		config.AWSConfig.Credentials = aws.AnonymousCredentials{} // only checked, not used
	}
	// What it says of single messages does not hold: it is told that each was nacked.
	levels := map[slog.Level]slog.Level{slog.LevelDebug: watermill.LevelTrace}
	inner, err := wmsqs.NewSubscriber(config, watermill.NewSlogLoggerWithLevelMapping(s.queues.config.Log, levels))
	if err != nil {
		return nil, nil, err
	}
	in, err := inner.Subscribe(ctx, s.url)
	return inner, in, err
}

func (s *subscription) receiveInput(context.Context, wmsqs.QueueURL) (*sqs.ReceiveMessageInput, error) {
	return &sqs.ReceiveMessageInput{
		QueueUrl: &s.url, MaxNumberOfMessages: 1, WaitTimeSeconds: seconds(s.queues.config.Wait),
		MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{
			types.MessageSystemAttributeNameSentTimestamp, types.MessageSystemAttributeNameApproximateReceiveCount,
		},
	}, nil
}

// unmarshaler carries the message as it came past watermill-aws. It never fails:
// watermill-aws would receive the message again and again.
type unmarshaler func(*types.Message)

// Unmarshal implements sqs.Unmarshaler.
func (u unmarshaler) Unmarshal(raw *types.Message) (*message.Message, error) {
	u(raw)
	return message.NewMessage(aws.ToString(raw.MessageId), nil), nil
}

func (s *subscription) gateReceives(stack *middleware.Stack) error {
	if stack.ID() != "ReceiveMessage" {
		return nil
	}
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("Gate", s.receive), middleware.Before)
}

// receive asks the gate, and then lets the request run to its end whatever
// becomes of ctx: a message that comes back to nobody is invisible until its
// visibility ends.
func (s *subscription) receive(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (
	out middleware.InitializeOutput, metadata middleware.Metadata, err error,
) {
	if ctx.Err() != nil { // the loop of watermill-aws looks in no particular order
		return out, metadata, context.Canceled
	}
	visibility, end, err := s.gate(ctx)
	if end == nil {
		end = func(int) {}
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		end(0)
		s.stop()
		s.log.DebugContext(ctx, "gate closed", "error", err)
		return out, metadata, context.Canceled // which watermill-aws does not report
	}
	input := *in.Parameters.(*sqs.ReceiveMessageInput) //nolint:forcetypeassert // of this operation
	s.poll = poll{asked: time.Now(), visibility: wholeSeconds(visibility, s.queues.config.Visibility), end: end}
	input.VisibilityTimeout = seconds(s.poll.visibility)
	in.Parameters = &input
	err = once(context.WithoutCancel(ctx), s.queues.config.Wait+callTimeout, func(ctx context.Context) error {
		out, metadata, err = next.HandleInitialize(ctx, in)
		return err
	})
	if err != nil && unanswered(err) {
		s.unsure()
	}
	if result, ok := out.Result.(*sqs.ReceiveMessageOutput); err != nil || !ok || len(result.Messages) == 0 {
		s.poll.end(0)
	}
	return out, metadata, err
}

// forward makes messages of what is received and hands them out, until receiving
// ends; ctx is the messages' own. The receive loop goes on when a message was taken.
func (s *subscription) forward(ctx, receiving context.Context, in <-chan *message.Message) {
	for inner := range in {
		h := s.hold(ctx, s.poll)
		if h.renew(ctx) {
			s.poll.end(0)
		} else {
			s.messages.Go(func() { h.run(ctx) })
			s.poll.end(s.handOut(receiving, h))
		}
		inner.Nack() // makes no call
	}
}

// handOut returns when a message was taken, or given back: how many were taken.
func (s *subscription) handOut(receiving context.Context, h *held) int {
	if receiving.Err() == nil {
		select {
		case s.out <- h.message:
			return 1
		case <-receiving.Done():
		}
	}
	HandBack(h.message)
	<-h.done
	return 0
}
