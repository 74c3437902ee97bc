package apicall

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// needs are the permissions of calls whose name is not that of their permission,
// as AWS's service authorization reference has them.
func needs(call string) []string {
	switch call {
	case "dynamodb:TransactWriteItems": // with the items that the journal writes
		return []string{"dynamodb:ConditionCheckItem", "dynamodb:PutItem"}
	case "s3:ListObjectsV2", "s3:HeadBucket":
		return []string{"s3:ListBucket"}
	case "s3:HeadObject":
		return []string{"s3:GetObject"}
	case "s3:DeleteObjects":
		return []string{"s3:DeleteObject"}
	case "s3:CreateMultipartUpload", "s3:UploadPart", "s3:CompleteMultipartUpload":
		return []string{"s3:PutObject"}
	case "sqs:SendMessageBatch":
		return []string{"sqs:SendMessage"}
	case "sqs:DeleteMessageBatch":
		return []string{"sqs:DeleteMessage"}
	case "sqs:ChangeMessageVisibilityBatch":
		return []string{"sqs:ChangeMessageVisibility"}
	}
	return []string{call}
}

// words is a string or a list of them.
type words []string

// UnmarshalJSON implements json.Unmarshaler.
func (w *words) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*w = words{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}

// Statement is one of a policy's.
type Statement struct {
	Sid, Effect      string
	Action, Resource words
	Condition        map[string]map[string]words
}

// Policy is an IAM policy of the simple kind: it allows actions by name.
type Policy struct {
	Version   string
	Statement []Statement
}

// Compare says which permissions the calls need and the policy does not give, and
// which it gives and no call needs. Calls may occur more than once.
func Compare(p Policy, calls []string) error {
	var errs []error
	allowed := map[string]bool{}
	for _, s := range p.Statement {
		for _, action := range s.Action {
			if s.Effect != "Allow" {
				errs = append(errs, fmt.Errorf("statement %s is no Allow", s.Sid))
			}
			allowed[action] = true
		}
	}
	needed := map[string]bool{}
	for _, call := range calls {
		for _, action := range needs(call) {
			if !allowed[action] && !needed[action] {
				errs = append(errs, fmt.Errorf("%s needs %s, and the policy does not allow it", call, action))
			}
			needed[action] = true
		}
	}
	var extra []string
	for action := range allowed {
		if !needed[action] {
			extra = append(extra, action)
		}
	}
	slices.Sort(extra)
	for _, action := range extra {
		errs = append(errs, fmt.Errorf("the policy allows %s, and no call needs it", action))
	}
	return errors.Join(errs...)
}
