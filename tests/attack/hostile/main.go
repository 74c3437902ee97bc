// Command hostile is what a hostile model, repository or package would run: it
// tries one attack after the other and says of each whether it succeeded. It
// harms nothing: what it may signal it sends a signal that is ignored, what it
// may replace it puts back.
//
//	hostile agent PLAN     what the agent runs
//	hostile build PLAN     what `npm run build` runs; so do config and postinstall
//	hostile decoy SECRET   another process of the worker's user, for the worker's side
//	hostile linger FILE    outlives whoever starts it, and writes
//	hostile old-kernel PROGRAM ARGUMENTS, where there is no Landlock; as root
//	hostile fork N, hostile memory MIB, hostile disk MIB
//
// PLAN is a file with what the attacker knows, in JSON. Each outcome is a line of
// JSON in the file that the plan names.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
)

// plan is what the attacker knows.
type plan struct {
	Out  string   // where outcomes go
	Only []string // the attacks to try; empty means all

	Workspaces string // the directory of all workspaces
	Own        string // the attacker's pair directory
	Victim     string // another pair's
	Home       string // the worker's home
	State      string // the worker's state: journal, sites
	Mark       string // a name that nothing else has

	Upstream string // host:port of the model's service
	Metadata string // host:port of the cloud's metadata service
	Outside  string // host:port of a host outside, TCP and UDP
	Socket   string // a unix socket of the machine
	Abstract string // an abstract one
	Keeper   string // the keeper's program

	VictimPair             string // the other pair, as the keeper names it
	VictimURL, VictimToken string // the other job's gateway, as if they had leaked
}

// attack tries one thing. It returns what it got; the error says that, and why,
// it failed.
type attack struct {
	name string
	try  func(p plan) (string, error)
}

// outcome is a line of the report.
type outcome struct {
	Name      string `json:"name"`
	Succeeded bool   `json:"succeeded"`
	Detail    string `json:"detail"`
}

// canary is what every planted secret looks like.
var canary = regexp.MustCompile(`canary-[a-z]+-[0-9a-f]{16}`)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 1 && args[0] == "old-kernel" {
		return oldKernel(args[1:])
	}
	if len(args) != 2 {
		return fmt.Errorf("usage: hostile WHAT ARGUMENT, not %q", args)
	}
	switch args[0] {
	case "agent":
		return all("", args[1], agentAttacks())
	case "build", "config", "postinstall":
		return all(args[0]+"_", args[1], buildAttacks())
	case "decoy":
		return decoy()
	case "linger":
		return linger(args[1])
	case "fork", "memory", "disk":
		return bomb(args[0], args[1])
	}
	return fmt.Errorf("no such attack: %q", args[0])
}

// all tries each attack and reports.
func all(prefix, planFile string, attacks []attack) error {
	text, err := os.ReadFile(planFile)
	if err != nil {
		return err
	}
	var p plan
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	out, err := os.OpenFile(p.Out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // each line is written
	report := json.NewEncoder(out)
	for _, a := range attacks {
		if len(p.Only) > 0 && !slices.Contains(p.Only, a.name) {
			continue
		}
		detail, err := a.try(p)
		o := outcome{Name: prefix + a.name, Succeeded: err == nil, Detail: detail}
		if err != nil {
			o.Detail = err.Error()
		}
		if err := report.Encode(o); err != nil {
			return err
		}
	}
	return nil
}

func agentAttacks() []attack {
	var list []attack
	list = append(list, processAttacks()...)
	list = append(list, fileAttacks()...)
	list = append(list, networkAttacks()...)
	list = append(list, gatewayAttacks()...)
	return append(list, machineAttacks()...)
}

// buildAttacks are those of a package's script, of which there is less to lose:
// the agent has tried the rest behind the same wall.
func buildAttacks() []attack {
	wanted := map[string]bool{
		"environment": true, "worker_environ": true, "health_environ": true, "other_environ": true, "victim_site_read": true, "own_state_write": true,
		"loopback": true, "metadata": true, "outside_tcp": true,
	}
	var list []attack
	for _, a := range agentAttacks() {
		if wanted[a.name] {
			list = append(list, a)
		}
	}
	return append(list, attack{"gateway_after_agent", gatewayAfterAgent})
}
