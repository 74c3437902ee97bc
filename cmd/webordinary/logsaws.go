package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/smithy-go/logging"
)

const (
	// logsEvery is the time between two looks for new lines.
	logsEvery = 2 * time.Second
	// logsLate is how long after its time a line may become visible.
	logsLate = 30 * time.Second
)

// group reads a log group of CloudWatch Logs.
type logGroup struct {
	client *cloudwatchlogs.Client
	name   string
	filter string
	from   int64            // Unix time in ms
	seen   map[string]int64 // by event id: the time of what was shown, as far as it may come again
	show   func([]byte) error
}

// followGroup shows what a log group has, and goes on if it is to follow.
func followGroup(ctx context.Context, sys system, o logsOptions, show func([]byte) error) error {
	c, err := loadConfig(sys.environ)
	if err != nil {
		return err
	}
	sdk, err := c.awsConfig(ctx)
	if err != nil {
		return err
	}
	if sdk.Region == "" {
		return errNoRegion
	}
	if err := haveCredentials(ctx, sdk); err != nil {
		return err
	}
	sdk.Logger = logging.Nop{} // it would write between our lines
	g := &logGroup{
		client: cloudwatchlogs.NewFromConfig(sdk), name: o.group, filter: logsFilter(o),
		from: time.Now().Add(-o.since).UnixMilli(), seen: map[string]int64{}, show: show,
	}
	for began := false; ; began = true {
		err := g.look(ctx)
		var missing *types.ResourceNotFoundException
		switch {
		case errors.As(err, &missing):
			return fmt.Errorf("there is no log group %s in %s; name another one with --group, or another AWS_REGION", o.group, sdk.Region)
		case err != nil && (!began || ctx.Err() != nil || !o.follow):
			return fmt.Errorf("read log group %s: %w", o.group, err)
		case err != nil:
			fmt.Fprintln(sys.stderr, "no new lines:", inert(explained(err)), "- trying again") //nolint:errcheck // it is not the result
		}
		if !o.follow {
			return nil
		}
		if !waited(ctx, logsEvery) {
			return ctx.Err()
		}
	}
}

// logsFilter lets CloudWatch select what it can; the rest is selected here.
func logsFilter(o logsOptions) string {
	if o.command == "" {
		return ""
	}
	id, err := json.Marshal(o.command)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("{ ($.command_id = %s) || ($.correlation_id = %s) }", id, id)
}

// look shows what is new.
func (g *logGroup) look(ctx context.Context) error {
	in := &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &g.name, StartTime: &g.from}
	if g.filter != "" {
		in.FilterPattern = &g.filter
	}
	newest := int64(0)
	pages := cloudwatchlogs.NewFilterLogEventsPaginator(g.client, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, e := range page.Events {
			id, at := aws.ToString(e.EventId), aws.ToInt64(e.Timestamp)
			if _, twice := g.seen[id]; twice {
				continue
			}
			g.seen[id] = at
			newest = max(newest, at)
			if err := g.show([]byte(aws.ToString(e.Message))); err != nil {
				return err
			}
		}
	}
	// What comes late must still be found, and what was shown be known.
	g.from = max(g.from, newest-logsLate.Milliseconds())
	for id, at := range g.seen {
		if at < g.from {
			delete(g.seen, id)
		}
	}
	return nil
}
