package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go/logging"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/webordinary/claude-code-container/handlers"
	"github.com/webordinary/claude-code-container/internal/aws/bucket"
	"github.com/webordinary/claude-code-container/internal/aws/queue"
	"github.com/webordinary/claude-code-container/internal/aws/table"
	"github.com/webordinary/claude-code-container/internal/aws/task"
	"github.com/webordinary/claude-code-container/internal/claim"
	"github.com/webordinary/claude-code-container/internal/deploy"
	"github.com/webordinary/claude-code-container/internal/journal"
	"github.com/webordinary/claude-code-container/internal/process"
	"github.com/webordinary/claude-code-container/router"
)

func runCommand(sys system) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Work for the platform, as the container does",
		Long: "Work for the platform, as the container does: claim projects, carry out their instructions,\n" +
			"build and deploy their sites, and answer.\n\n" +
			"SIGTERM hands back what is not done, and ends with code 0.\n\n" +
			"Everything is set by the environment or by .env.local in the working directory:\n\n" + describeConfig(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := process.Harden(); err != nil {
				return err
			}
			c, err := loadConfig(sys.environ, "UNCLAIMED_QUEUE_URL", anthropicKey)
			if err != nil {
				return err
			}
			return (&worker{sys: sys, config: c}).run(cmd.Context())
		},
	}
}

// worker is the container: the router over SQS, DynamoDB and S3.
type worker struct {
	sys    system
	config *config
	log    *slog.Logger
	aws    aws.Config
	queues *queue.Queues
	tables *table.Tables
	s3     *s3.Client
	pulse  *heartbeat
	// protection keeps ECS from ending the task while a job runs.
	protection *task.Protection
}

func (w *worker) run(ctx context.Context) error {
	w.log = w.config.logger(w.sys.stdout)
	for _, text := range w.config.warnings() {
		w.log.WarnContext(ctx, "configuration", slog.String("warning", text))
	}
	if err := w.connect(ctx); err != nil {
		return err
	}
	defer w.queues.Close() //nolint:errcheck // it closes idle connections
	r, err := w.router(ctx)
	if err != nil {
		return err
	}
	stop := w.beside(ctx, w.pulse.Run, w.protection.Run)
	w.log.InfoContext(ctx, "worker started", slog.String("version", version()))
	err = r.Run(ctx)
	stop()
	w.log.InfoContext(ctx, "worker ended")
	return err
}

// beside runs what goes on for as long as the worker does. The func it returns ends
// it, and waits.
func (w *worker) beside(ctx context.Context, all ...func(context.Context)) func() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	for _, f := range all {
		running.Go(func() { f(ctx) })
	}
	return func() { cancel(); running.Wait() }
}

// connect makes the clients. With CREATE_RESOURCES, what is missing is created.
func (w *worker) connect(ctx context.Context) error {
	var err error
	if w.aws, err = w.config.awsConfig(ctx); err != nil {
		return err
	}
	w.aws.Logger = sdkLogger(w.log) //nolint:contextcheck // the SDK logs without one
	if w.aws.Region == "" {
		return errNoRegion
	}
	w.queues = queue.New(queue.Config{
		Client: sqs.NewFromConfig(w.aws), Visibility: w.config.Visibility, Wait: w.config.poll(), CloseTimeout: w.config.ShutdownGrace,
		Create: w.config.CreateResources, DLQ: w.deadLetters, Log: w.log, LogContext: router.LogContext,
	})
	w.s3 = bucket.NewClient(w.aws, w.config.S3PathStyle)
	w.tables = table.New(dynamodb.NewFromConfig(w.aws), table.Config{Ownership: w.config.OwnershipTable, Journal: w.config.JournalTable})
	if !w.config.CreateResources {
		return nil
	}
	if err := w.tables.Create(ctx); err != nil {
		return err
	}
	_, err = w.queues.Exists(ctx, w.config.UnclaimedQueueURL) // subscribing creates it; that SQS answers is seen now
	return err
}

// sdkLogger takes what the SDK would print between our lines.
func sdkLogger(log *slog.Logger) logging.Logger {
	return logging.LoggerFunc(func(class logging.Classification, format string, v ...any) {
		level := slog.LevelDebug
		if class == logging.Warn {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "AWS SDK", slog.String("text", fmt.Sprintf(format, v...)))
	})
}

// router wires the worker.
func (w *worker) router(ctx context.Context) (*router.Router, error) {
	id, err := w.containerID(ctx)
	if err != nil {
		return nil, err
	}
	w.log = w.log.With(slog.String("container_id", id))
	instruction, err := w.config.newInstruction(ctx, w.sys.environ, w.config.workspaces(), w.log)
	if err != nil {
		return nil, err
	}
	instruction.Journal = &journal.Journal{Store: w.tables.Journal(), Wrote: faults(w.sys.environ)}
	instruction.Step, instruction.Bucket = func(s handlers.Step) { w.pulse.Step(s) }, w.bucket
	c := w.config
	if w.protection, err = task.NewProtection(w.sys.environ, task.Options{Log: w.log}); err != nil {
		return nil, err
	}
	w.pulse = newHeartbeat(heartbeatFile(c.HeartbeatFile), c.stepLimit, w.log)
	return router.New(router.Config{
		Unclaimed: c.UnclaimedQueueURL, Queues: w.queues, Names: c.names(), Instruction: *instruction,
		Claims: &claim.Claims{
			Table: w.tables.Claims(), ContainerID: id, Duration: c.LeaseDuration, Renewal: c.LeaseRenewal, Now: boottime(), Log: w.log,
		},
		MaxClaims: c.MaxClaims, IdleTimeout: c.IdleTimeout, Poll: c.poll(), Visibility: c.Visibility, SweepInterval: c.SweepInterval,
		Policy: router.Policy(c.InterruptPolicy), ShutdownGrace: c.ShutdownGrace, Busy: w.protection.Busy, CreateProgress: c.CreateResources,
		Drop: queue.Drop, HandBack: queue.HandBack, Metrics: w.metrics(), Redact: c.redact(), Log: w.log,
	})
}

// containerID is the configured one, ECS's, or one made up.
func (w *worker) containerID(ctx context.Context) (string, error) {
	if w.config.ContainerID != "" {
		return w.config.ContainerID, nil
	}
	switch id, err := task.ID(ctx, w.sys.environ); {
	case err != nil:
		w.log.WarnContext(ctx, "no task id from ECS", slog.Any("error", err))
	case id != "":
		return id, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("no CONTAINER_ID, and no host name: %w", err)
	}
	return host + "-" + uuid.NewString()[:8], nil
}

// metrics is where lines in CloudWatch's metric format go: they are JSON, and not
// for people.
func (w *worker) metrics() io.Writer {
	if w.config.LogFormat == "text" {
		return io.Discard
	}
	return w.sys.stdout
}

// bucket opens the bucket of a project's site. With CREATE_RESOURCES, one that is
// missing is created when it is first looked at.
func (w *worker) bucket(name string) (deploy.Bucket, error) {
	return bucket.Open(w.s3, name, bucket.Options{Create: w.config.CreateResources}), nil
}

// deadLetters is the queue that SQS itself moves a message to after three receives.
func (w *worker) deadLetters(topic string) string {
	if topic == w.config.UnclaimedQueueURL {
		return w.config.names().Unclaimed()
	}
	return w.config.names().DLQOf(topic)
}

// poll is how long a receive waits. It must fit into the trust in a lease several
// times.
func (c *config) poll() time.Duration {
	return max(min(5*time.Second, (c.LeaseDuration/5).Truncate(time.Second)), time.Second)
}
