package site_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/webordinary/claude-code-container/tests/platform/site"
)

func TestAdd(t *testing.T) {
	a := site.Add{Token: "c-1", Work: 300 * time.Millisecond, Build: time.Second}
	got, err := site.Parse(a.String())
	if err != nil || got != a {
		t.Errorf("read back as %+v, %v", got, err)
	}
	once := a.Apply("start\n")
	if d := cmp.Diff(once, a.Apply(once)); d != "" {
		t.Error("carried out twice:", d)
	}
	b := site.Add{Token: "c-2"}
	if d := cmp.Diff([]string{"c-1", "c-2"}, site.Tokens(b.Apply(once))); d != "" {
		t.Error("tokens:", d)
	}
	if last, ok := site.Last(b.Apply(once)); !ok || last != b {
		t.Errorf("last is %+v, %v", last, ok)
	}
}

func TestBuildNamesItsAssets(t *testing.T) {
	files := site.Build("start\n")
	for _, page := range []string{"index.html", "about/index.html"} {
		assets := site.Assets(files[page])
		if len(assets) != 1 || files[assets[0]] == "" {
			t.Errorf("%s names %v, and there is none", page, assets)
		}
	}
}
