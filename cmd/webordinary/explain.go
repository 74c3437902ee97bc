package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
)

// explained is the text of an error for people: what a call of AWS ended with in few
// words, and what to do about it.
func explained(err error) string {
	text, advice := err.Error(), ""
	for _, call := range callsIn(err) {
		text = strings.ReplaceAll(text, call.Error(), inWords(call))
		if advice == "" {
			advice = adviceFor(call)
		}
	}
	if advice == "" || strings.Contains(text, advice) {
		return text
	}
	return text + "\n" + advice
}

// callsIn returns the calls of AWS that an error tells of.
func callsIn(err error) []*smithy.OperationError {
	switch e := err.(type) { //nolint:errorlint // the whole tree is looked through
	case nil:
		return nil
	case *smithy.OperationError:
		return []*smithy.OperationError{e}
	case interface{ Unwrap() []error }:
		var all []*smithy.OperationError
		for _, inner := range e.Unwrap() {
			all = append(all, callsIn(inner)...)
		}
		return all
	}
	return callsIn(errors.Unwrap(err))
}

// inWords is what a call ended with.
func inWords(call *smithy.OperationError) string {
	var api smithy.APIError
	var request *url.Error
	switch {
	case errors.As(call, &api):
		return strings.TrimSuffix(fmt.Sprintf("%s refuses %s: %s: %s", call.Service(), call.Operation(), api.ErrorCode(), api.ErrorMessage()), ": ")
	case errors.As(call, &request):
		return fmt.Sprintf("%s does not answer: %s: %s", call.Service(), request.URL, lastLine(request.Err))
	}
	return call.Error()
}

func adviceFor(call *smithy.OperationError) string {
	var request *url.Error
	switch code := errorCode(call); {
	case denied(code):
		return "Allow it, as infra/ecs/operator-policy.json does; or use other credentials, or another AWS_REGION."
	case code == "ResourceNotFoundException" && call.Service() == "DynamoDB":
		return "There is no such table: see CONTAINER_OWNERSHIP_TABLE, JOURNAL_TABLE and AWS_REGION; `webordinary doctor` looks at them."
	case code == "" && errors.As(call, &request):
		return "See that the network leads there, and that AWS_REGION and AWS_ENDPOINT_URL, if it is set, are right; `webordinary doctor` tries all that is needed."
	}
	return ""
}

// haveCredentials finds out at once what each call would find out after many tries.
func haveCredentials(ctx context.Context, c aws.Config) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callPatience, errNoAnswer)
	defer cancel()
	err := errors.New("none are configured")
	if c.Credentials != nil {
		_, err = c.Credentials.Retrieve(ctx)
	}
	if err != nil {
		return fmt.Errorf("there are no AWS credentials: %s\nSet AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment; a task in ECS has them by its role", lastLine(err))
	}
	return nil
}
