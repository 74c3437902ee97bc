package browser

import (
	"bytes"
	"image/png"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestPage(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte(`<style>h1 { background: #0f766e }</style><h1>Bread</h1>`)) //nolint:errcheck // the page would lack it
	}))
	defer site.Close()
	p := Start(t).Open(site.URL, 320, 200)
	if text, colour := p.Eval("document.body.innerText"), p.Style("h1", "background-color"); text != "Bread" || colour != "rgb(15, 118, 110)" {
		t.Errorf("text %q, colour %s", text, colour)
	}
	img, err := png.Decode(bytes.NewReader(p.Screenshot()))
	if err != nil {
		t.Fatal(err)
	}
	if size := img.Bounds().Size(); size.X != 320 || size.Y != 200 {
		t.Errorf("size %v", size)
	}
}
