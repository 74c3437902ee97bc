package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func runCommand(sys system) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Work for the platform, as the container does",
		Long: "Work for the platform, as the container does: claim projects, carry out their instructions,\n" +
			"build and deploy their sites, and answer.\n\n" +
			"Everything is set by the environment or by .env.local in the working directory:\n\n" + describeConfig(),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := loadConfig(sys.environ, "UNCLAIMED_QUEUE_URL"); err != nil {
				return err
			}
			return errors.New("the configuration is right, but the adapters to SQS, DynamoDB and S3 are still missing; `webordinary demo` works without them")
		},
	}
}
