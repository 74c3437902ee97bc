package queue

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	wmsqs "github.com/ThreeDotsLabs/watermill-aws/sqs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/webordinary/claude-code-container/internal/protocol"
	"github.com/webordinary/claude-code-container/middleware"
)

const (
	maxAttributes    = 10
	maxAttributeName = 256
)

type attributes = map[string]types.MessageAttributeValue

// ours are the attributes that this program sets, by how much they would be missed: a
// command's id and times, why it is a dead letter and where it belongs, whose it is, and
// what can be found out otherwise. They are one more than SQS allows; the last is the
// first to go.
func ours() []string {
	return []string{
		protocol.AttrCommandID, protocol.AttrSentAt, protocol.AttrResent,
		middleware.PoisonReason, middleware.PoisonTopic,
		middleware.CorrelationIDKey, "sessionId",
		middleware.PoisonAttempts, middleware.PoisonTime, middleware.PoisonHandler,
		wmsqs.UUIDAttribute,
	}
}

// rank orders attributes; those of others come last.
func rank(name string) int {
	all := ours()
	if i := slices.Index(all, name); i >= 0 {
		return i
	}
	return len(all)
}

// attributesOf turns metadata into attributes that SQS accepts. It leaves out what
// is empty or has a name that SQS refuses, and then what is too many.
func attributesOf(m *message.Message) attributes {
	all := attributes{}
	for name, value := range m.Metadata {
		set(all, name, value)
	}
	set(all, wmsqs.UUIDAttribute, m.UUID)
	return first(all, maxAttributes)
}

func set(all attributes, name, value string) {
	if value = acceptable(value); value != "" && acceptableName(name) {
		all[name] = types.MessageAttributeValue{DataType: aws.String(wmsqs.AWSStringDataType), StringValue: &value}
	}
}

// first returns the n most important attributes.
func first(all attributes, n int) attributes {
	names := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
	kept := attributes{}
	for _, name := range names[:min(n, len(names))] {
		kept[name] = all[name]
	}
	return kept
}

// own returns the attributes that are not of others.
func own(all attributes) attributes {
	kept := attributes{}
	for name, value := range all {
		if slices.Contains(ours(), name) {
			kept[name] = value
		}
	}
	return kept
}

// essential returns the attributes without which a command would be another one.
func essential(all attributes) attributes {
	kept := attributes{}
	for name, value := range all {
		if rank(name) <= rank(protocol.AttrResent) {
			kept[name] = value
		}
	}
	return kept
}

// size is what SQS counts.
func size(body string, all attributes) int {
	n := len(body)
	for name, value := range all {
		n += len(name) + len(aws.ToString(value.DataType)) + len(aws.ToString(value.StringValue)) + len(value.BinaryValue)
	}
	return n
}

// acceptable replaces what SQS refuses in a text.
func acceptable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t', r == '\n', r == '\r', r >= 0x20 && r < 0xFFFE, r > 0xFFFF:
			return r
		}
		return utf8.RuneError
	}, text)
}

func acceptableName(name string) bool {
	lower := strings.ToLower(name)
	return name != "" && len(name) <= maxAttributeName && !strings.ContainsFunc(name, refusedInName) &&
		!strings.HasPrefix(lower, "aws.") && !strings.HasPrefix(lower, "amazon.") &&
		!strings.HasPrefix(name, ".") && !strings.HasSuffix(name, ".") && !strings.Contains(name, "..")
}

func refusedInName(r rune) bool {
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	digit := r >= '0' && r <= '9'
	return !letter && !digit && !strings.ContainsRune("_-.", r)
}

// text returns an attribute's value, whatever its type: numbers and custom types
// too, binary ones byte for byte.
func text(value types.MessageAttributeValue) string {
	if value.StringValue != nil {
		return *value.StringValue
	}
	return string(value.BinaryValue)
}
