package build

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// nodeProgram is the file that node is: another one, or an updated one, is another
// nodeProgram.
type nodeProgram struct {
	path         string
	device, file uint64
	size         int64
	changed      int64 // ns since 1970
}

// nodeVersion asks node, once for each program: starting it takes longer than all
// else that is looked at before a build.
func (s *site) nodeVersion(ctx context.Context) (string, error) {
	program, isProgram := s.findNode()
	if isProgram {
		s.mu.Lock()
		version := s.versions[program]
		s.mu.Unlock()
		if version != "" {
			return version, nil
		}
	}
	out, err := s.run(ctx, "node", "--version")
	if err != nil {
		return "", err
	}
	version := out.stdout.String()
	if isProgram {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.versions == nil {
			s.versions = map[nodeProgram]string{}
		}
		s.versions[program] = version
	}
	return version, nil
}

// findNode finds what children run as node; false if it is not known, or a script,
// which may run another node in each checkout.
func (s *site) findNode() (nodeProgram, bool) {
	for _, kv := range s.env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(list) {
			path := filepath.Join(dir, "node")
			info, err := os.Stat(path)
			if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
				continue
			}
			st, ok := info.Sys().(*syscall.Stat_t)
			if !ok || !isBinary(path) {
				return nodeProgram{}, false
			}
			return nodeProgram{path: path, device: st.Dev, file: st.Ino, size: info.Size(), changed: info.ModTime().UnixNano()}, true
		}
	}
	return nodeProgram{}, false
}

func isBinary(path string) bool {
	f, err := os.Open(path) //nolint:gosec // it is what children run
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // it was only read from
	const elf = "\x7fELF"
	start := make([]byte, len(elf))
	_, err = io.ReadFull(f, start)
	return err == nil && string(start) == elf
}
