package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// errUnsuccessful ends the program with code 1 after its message was shown: the
// command ran, and its result is a failure.
var errUnsuccessful = errors.New("the instruction was not carried out")

func execute(ctx context.Context, args []string, sys system) int {
	root := &cobra.Command{
		Use:           "webordinary",
		Short:         "Turns plain-language instructions into deployed websites",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(demoCommand(sys), runCommand(sys), healthCommand(sys), logsCommand(sys), versionCommand(), demoAgentCommand(sys)) //nolint:contextcheck // commands get theirs from ExecuteContext
	root.AddCommand(sendCommand(sys), claimsCommand(sys), dlqCommand(sys), statusCommand(sys), doctorCommand(sys))                    //nolint:contextcheck // commands get theirs from ExecuteContext
	root.SetArgs(args)
	root.SetIn(sys.stdin)
	root.SetOut(sys.stdout)
	root.SetErr(sys.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; `%s --help` says what there is", err, cmd.CommandPath())
	})
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUnsuccessful):
		return 1
	}
	fmt.Fprintln(sys.stderr, "webordinary:", explained(err)) //nolint:errcheck // nobody reads: the exit code says it too
	return 1
}

func versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == outputJSON {
				return writeJSON(cmd.OutOrStdout(), map[string]string{"version": version()})
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version())
			return err
		},
	}
	outputFlag(cmd, &output, "an object")
	return cmd
}

// revision is the commit, where the program is built without its repository, as
// in the image.
var revision string //nolint:gochecknoglobals // the linker sets it

// version is the module's, or the commit it was built from.
func version() string {
	v, commit := "devel", ""
	if revision != "" {
		commit = " " + revision
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" && info.Main.Version != "(devel)" {
			v = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = " " + s.Value
			}
		}
	}
	return "webordinary " + v + commit + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
