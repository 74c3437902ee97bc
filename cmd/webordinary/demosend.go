package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
)

// sendLines sends each line of stdin as it comes.
func (d *demo) sendLines(ctx context.Context) error {
	lines, failed := make(chan []byte), make(chan error, 1)
	go func() { // ends with the input, or with the program
		in := bufio.NewReader(d.sys.stdin)
		for {
			line, err := in.ReadBytes('\n')
			if len(bytes.TrimSpace(line)) > 0 {
				select {
				case lines <- line:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				failed <- err
				return
			}
		}
	}()
	for {
		select {
		case line := <-lines:
			if err := d.send(ctx, bytes.TrimSpace(line)); err != nil {
				return err
			}
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read stdin: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// send publishes one message as the platform does: it goes to the input queue,
// and then, if nobody holds the project, a claim request to the unclaimed queue.
// What has no usable ids goes to the unclaimed queue itself.
func (d *demo) send(ctx context.Context, body []byte) error {
	msg := message.NewMessage(watermill.NewUUID(), body)
	in, err := protocol.DecodeInput(body, protocol.Delivery{MessageID: msg.UUID})
	if err != nil {
		return d.publish(ctx, unclaimed, msg)
	}
	var p protocol.Pair
	if i := in.Interrupt; i != nil {
		p = protocol.Pair{ProjectID: i.ProjectID, UserID: i.UserID}
		if p.Validate() != nil {
			p = d.last
		}
	} else {
		p = in.Command.Pair()
	}
	if d.names.Check(p) != nil || p.Validate() != nil {
		return d.publish(ctx, unclaimed, msg)
	}
	d.last = p
	if err := d.watchPair(ctx, p); err != nil {
		return err
	}
	if err := d.publish(ctx, d.names.Input(p), msg); err != nil || d.active(ctx, p) {
		return err
	}
	request, err := protocol.ClaimRequest{ProjectID: p.ProjectID, UserID: p.UserID}.Encode()
	if err != nil {
		return err
	}
	return d.publish(ctx, unclaimed, message.NewMessage(watermill.NewUUID(), request))
}

func (d *demo) publish(ctx context.Context, topic string, msg *message.Message) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return d.queues.Publish(topic, msg)
}

func (d *demo) active(ctx context.Context, p protocol.Pair) bool {
	row, err := d.table.Get(ctx, p.Key())
	return err == nil && row.Status == claim.Active
}

func (d *demo) watchPair(ctx context.Context, p protocol.Pair) error {
	return errors.Join(d.watch(ctx, d.names.Output(p), d.answered), d.watch(ctx, d.names.DLQ(p), d.buried))
}

// watch reads a queue for as long as the program runs.
func (d *demo) watch(ctx context.Context, topic string, take func(*message.Message)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.watched[topic] {
		return nil
	}
	d.watched[topic] = true
	messages, err := d.queues.Subscriber(nil, nil).Subscribe(context.WithoutCancel(ctx), topic)
	if err != nil {
		return err
	}
	go func() { // ends when the queues are closed
		for m := range messages {
			take(m)
			m.Ack()
		}
	}()
	return nil
}

func (d *demo) answered(m *message.Message) {
	var out protocol.OutputMessage
	if err := json.Unmarshal(m.Payload, &out); err != nil {
		d.tell("answer", "unreadable: "+err.Error())
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers = append(d.answers, out)
	if d.printing != nil {
		d.printing.Write(append(m.Payload, '\n')) //nolint:errcheck // stdout is gone: nobody reads
	}
}

func (d *demo) buried(m *message.Message) {
	d.tell("dead", m.Metadata.Get(middleware.PoisonReason))
}
