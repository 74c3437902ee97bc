package queue

import (
	"maps"
	"strconv"
	"time"

	wmsqs "github.com/ThreeDotsLabs/watermill-aws/sqs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/webordinary/claude-code-container/internal/protocol"
)

// contentOf makes a Watermill message of one from SQS. It takes whatever comes:
// what cannot be read as an attribute is a matter of whoever reads the message.
func contentOf(raw *types.Message) *message.Message {
	uuid := text(raw.MessageAttributes[wmsqs.UUIDAttribute])
	if uuid == "" {
		uuid = aws.ToString(raw.MessageId)
	}
	m := message.NewMessage(uuid, []byte(aws.ToString(raw.Body)))
	for name, value := range raw.MessageAttributes {
		if name != wmsqs.UUIDAttribute {
			m.Metadata[name] = text(value)
		}
	}
	return m
}

// deliveryOf reads what SQS and earlier workers say of a message.
func deliveryOf(raw *types.Message, metadata message.Metadata) protocol.Delivery {
	d := protocol.Delivery{MessageID: aws.ToString(raw.MessageId), Receives: 1}
	if n, err := strconv.Atoi(raw.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)]); err == nil {
		d.Receives = n
	}
	if ms, err := strconv.ParseInt(raw.Attributes[string(types.MessageSystemAttributeNameSentTimestamp)], 10, 64); err == nil {
		d.Sent = time.UnixMilli(ms).UTC()
	}
	return d.WithAttributes(metadata)
}

// resentAttributes are those of a message that is sent again: its own, and what
// would otherwise be lost with the message.
func resentAttributes(raw *types.Message, d protocol.Delivery) attributes {
	all := attributes{}
	maps.Copy(all, raw.MessageAttributes)
	if d.CommandID == "" {
		set(all, protocol.AttrCommandID, "sqs-"+d.MessageID)
	}
	if !d.Sent.IsZero() {
		set(all, protocol.AttrSentAt, d.SentAt())
	}
	set(all, protocol.AttrResent, "true")
	return first(all, maxAttributes)
}
