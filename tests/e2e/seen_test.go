package e2e

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/webordinary/claude-code-container/tests/browser"
	. "github.com/webordinary/claude-code-container/tests/modelserver" //nolint:revive // the scripts read like scripts
)

var update = flag.Bool("update", false, "write the pictures in docs/images anew")

// TestWhatAPersonSees opens the deployed site in a browser before and after an
// instruction.
func TestWhatAPersonSees(t *testing.T) {
	w := newWorld(t)
	w.model.Play("bread", Bash(`echo rye > public/note.txt`), Say("Rye it is."))
	w.model.Play("blue", Bash(`sed -i 's/#7a3b1d/#1d4ed8/' src/components/Header.astro`), Say("The header is blue now."))
	b := browser.Start(t)
	before := w.look(t, b, "more bread", "rgb(122, 59, 29)")
	after := w.look(t, b, "Make the header blue", "rgb(29, 78, 216)")
	for name, picture := range map[string][]byte{"demo-before.png": before, "demo.png": after} {
		file := filepath.Join("..", "..", "docs", "images", name)
		if *update {
			if err := os.WriteFile(file, picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%v; go test ./tests/e2e -run TestWhatAPersonSees -update writes it", err)
		}
		if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name), picture, 0o644); err != nil { // kept with go test -artifacts
			t.Error(err)
		}
	}
}

// look has an instruction carried out by demo --serve, and looks at the site. It wants
// a header of this colour, and a page that works.
func (w *world) look(t *testing.T, b *browser.Browser, instruction, colour string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), programs.binary, "demo", "--serve", "--dir", w.dir, instruction)
	cmd.Env = w.env
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	url := ""
	for in := bufio.NewScanner(stdout); url == "" && in.Scan(); {
		said.WriteString(in.Text() + "\n")
		if m := regexp.MustCompile(`^open +(http://127\.0\.0\.1:\d+/)`).FindStringSubmatch(in.Text()); m != nil {
			url = m[1]
		}
	}
	if url == "" {
		t.Fatalf("the demo served nothing (%v):\n%s", cmd.Wait(), said.String())
	}
	page := b.Open(url, 1000, 560)
	if got := page.Style("header", "background-color"); got != colour {
		t.Errorf("after %q the header is %s, want %s", instruction, got, colour)
	}
	if got := page.Eval("document.querySelector('header .name').innerText"); got != "Amelia’s Bakery" {
		t.Errorf("the header says %q", got)
	}
	if broken := page.Eval("[...document.images].filter(i => !i.naturalWidth).length"); broken != "0" {
		t.Errorf("%s pictures are missing", broken)
	}
	picture := page.Screenshot()
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatal(err)
	}
	red, green, blue, _ := img.At(4, 4).RGBA()
	if got := fmt.Sprintf("rgb(%d, %d, %d)", red>>8, green>>8, blue>>8); got != colour {
		t.Errorf("the corner of the picture is %s, want %s", got, colour)
	}
	if text := b.Open(url+"no-such-page", 400, 300).Eval("document.body.innerText"); strings.Contains(text, "Bakery") {
		t.Errorf("a page that is not there shows %q", text)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	return picture
}
