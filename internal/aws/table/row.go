package table

import (
	"math"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/webordinary/claude-code-container/internal/claim"
)

type item = map[string]types.AttributeValue

// field is an attribute of a row; it is absent if its value is nil.
type field struct {
	name  string
	value types.AttributeValue
}

// fieldsOf returns the attributes of a row, its key aside.
func fieldsOf(r claim.Row) []field {
	return []field{
		{attrContainer, orAbsent(r.ContainerID)},
		{attrClaimedAt, millis(r.ClaimedAt)},
		{attrLastActivity, millis(r.LastActivity)},
		{attrStatus, orAbsent(string(r.Status))},
		{attrTTL, seconds(r.Expires)},
		{attrFence, positive(r.Fence)},
		{attrRev, positive(r.Rev)},
		{attrTenure, orAbsent(r.Tenure)},
	}
}

// rowOf reads a row, whoever wrote it: what is missing or of another type is
// zero.
func rowOf(i item) claim.Row {
	return claim.Row{
		ProjectKey: textOf(i[attrKey]), ContainerID: textOf(i[attrContainer]),
		ClaimedAt: timeOf(i[attrClaimedAt], time.UnixMilli), LastActivity: timeOf(i[attrLastActivity], time.UnixMilli),
		Status: claim.Status(textOf(i[attrStatus])), Fence: numberOf(i[attrFence]), Rev: numberOf(i[attrRev]),
		Tenure: textOf(i[attrTenure]), Expires: timeOf(i[attrTTL], fromSeconds),
	}
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

func orAbsent(s string) types.AttributeValue {
	if s == "" {
		return nil
	}
	return text(s)
}

func positive(n int64) types.AttributeValue {
	if n == 0 {
		return nil
	}
	return number(n)
}

func millis(t time.Time) types.AttributeValue {
	if t.IsZero() {
		return nil
	}
	return number(t.UnixMilli())
}

func seconds(t time.Time) types.AttributeValue {
	if t.IsZero() {
		return nil
	}
	return number(t.Unix())
}

func fromSeconds(s int64) time.Time { return time.Unix(s, 0) }

func textOf(v types.AttributeValue) string {
	if s, ok := v.(*types.AttributeValueMemberS); ok {
		return s.Value
	}
	return ""
}

func numberOf(v types.AttributeValue) int64 {
	n, ok := v.(*types.AttributeValueMemberN)
	if !ok {
		return 0
	}
	if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
		return i
	}
	f, err := strconv.ParseFloat(n.Value, 64) // another's number may have a fraction
	if err != nil {
		return 0
	}
	return int64(math.Floor(max(min(f, 1<<52), -1<<52)))
}

func timeOf(v types.AttributeValue, of func(int64) time.Time) time.Time {
	if _, ok := v.(*types.AttributeValueMemberN); !ok {
		return time.Time{}
	}
	return of(numberOf(v)).UTC()
}
