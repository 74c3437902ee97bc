package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
)

// serve shows the deployed site on a loopback address until ctx ends.
func (d *demo) serve(ctx context.Context) error {
	root, err := os.OpenRoot(d.bucketDir(d.names.Bucket("demo")))
	if err != nil {
		return fmt.Errorf("nothing is deployed yet: %w", err)
	}
	defer root.Close() //nolint:errcheck // nothing was written
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: siteHandler(root.FS()), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	d.show(d.people(), "open    %s  (Ctrl-C ends)\n", d.look.paint(bold, "http://"+listener.Addr().String()+"/"))
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = server.Close()
		<-ended //nolint:errcheck // that the server was closed
	}
	return err
}

// siteHandler serves a site as its bucket's website does: index.html for a folder,
// 404.html for what is not there.
func siteHandler(site fs.FS) http.Handler {
	files := http.FileServerFS(site)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		if strings.HasSuffix(r.URL.Path, "/") || name == "" {
			name = path.Join(name, "index.html")
		}
		w.Header().Set("Cache-Control", "no-store")
		if info, err := fs.Stat(site, name); err == nil && !info.IsDir() && !strings.Contains("/"+name, "/.") {
			files.ServeHTTP(w, r)
			return
		}
		page, err := fs.ReadFile(site, "404.html")
		if errors.Is(err, fs.ErrNotExist) {
			page = []byte("There is no such page.\n")
		}
		w.WriteHeader(http.StatusNotFound)
		w.Write(page) //nolint:errcheck // the browser is gone: nobody reads
	})
}
