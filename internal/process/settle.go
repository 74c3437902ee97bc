package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What the children of a pair may change belongs to the pair's user and the
// worker's group, and both may write to it. What the worker writes there is handed
// over before a child starts, and what a child closed to the worker is opened when
// it has ended. Nobody of the pair runs meanwhile, but what lies there is a child's
// making: nothing is done by a path below the first directory, no link is followed,
// and what is neither the worker's nor the pair's is left alone.

const (
	maxDepth  = 1000
	maxSettle = 30 * time.Second
)

// settler sets owners and modes.
type settler struct {
	pair  int // user and group
	uid   int // the worker's
	gid   int // the worker's
	full  bool
	until time.Time
}

// settle brings the directories of the pair's access into order. Unless full is
// set, it does not look into a node_modules that the pair made: no worker writes
// there, and npm closes nothing.
func (p *pairUser) settle(full bool) error {
	s := settler{pair: p.id, uid: p.worker.uid, gid: p.worker.gid, full: full, until: time.Now().Add(maxSettle)}
	return onThread(func() error {
		// A file server knows no capabilities: to it, only root may do this.
		unix.SetfsuidRetUid(0) //nolint:errcheck // the next line looks
		if now, err := unix.SetfsuidRetUid(0); err != nil || now != 0 {
			return errors.Join(err, errors.New("become root for the file system"))
		}
		for _, path := range p.access.Write {
			if err := s.give(path); err != nil {
				return fmt.Errorf("hand %s to the pair: %w", path, err)
			}
		}
		for _, path := range p.access.Read {
			if err := s.show(p.access.Write, path); err != nil {
				return fmt.Errorf("show %s to the pair: %w", path, err)
			}
		}
		return nil
	})
}

// takeStreams lets the child open the pipes again that it was given: /dev/stderr
// is a path.
func (p *pairUser) takeStreams() error {
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO || int(st.Uid) != p.worker.uid {
			continue
		}
		if err := unix.Fchown(fd, p.id, -1); err != nil {
			return fmt.Errorf("hand a stream over: %w", err)
		}
	}
	return nil
}

// openDir opens a directory without following a link anywhere.
func openDir(at int, path string, flags int) (int, error) {
	return unix.Openat2(at, path, &unix.OpenHow{
		Flags:   uint64(flags | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC), //nolint:gosec // flags are positive
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// openBelow opens a directory that lies in one of the worker's, which nobody else
// may write to, and which therefore is what the worker meant.
func (s settler) openBelow(path string) (parent int, err error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return -1, errors.New("it is not a plain absolute path")
	}
	parent, err = openDir(unix.AT_FDCWD, filepath.Dir(path), unix.O_PATH)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(parent, &st); err != nil {
		return -1, errors.Join(err, unix.Close(parent))
	}
	if int(st.Uid) != s.uid || st.Mode&unix.S_IWOTH != 0 || st.Mode&unix.S_IWGRP != 0 && int(st.Gid) != s.gid {
		return -1, errors.Join(errors.New("the directory above it is not the worker's alone"), unix.Close(parent))
	}
	return parent, nil
}

// give makes a directory, and what is in it, the pair's.
func (s settler) give(path string) error {
	parent, err := s.openBelow(path)
	if err != nil {
		return err
	}
	defer unix.Close(parent) //nolint:errcheck // it was only looked at
	return s.entry(parent, filepath.Base(path), 0)
}

// wants is what an entry should have; ok is false if it is none of ours.
func (s settler) wants(st *unix.Stat_t) (mode uint32, ok bool) {
	mode = st.Mode & 0o7777
	ours := int(st.Uid) == s.uid
	if !ours && int(st.Uid) != s.pair {
		return mode, false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return mode | unix.S_ISGID | 0o770, true
	case unix.S_IFREG:
		// A file that has another name may lie elsewhere, too. The pair's own
		// it could give away itself.
		if ours {
			return mode&0o777 | 0o660, st.Nlink == 1
		}
		return mode&0o777 | 0o040, true
	}
	return mode, false
}

// entry brings one entry of a directory, and what is in it, into order.
func (s settler) entry(dir int, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return ignoreGone(err)
	}
	mode, ok := s.wants(&st)
	if !ok {
		return nil
	}
	if int(st.Uid) != s.pair || int(st.Gid) != s.gid || st.Mode&0o7777 != mode {
		if err := s.change(dir, name, &st); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	if name == "node_modules" && int(st.Uid) == s.pair && !s.full {
		return nil
	}
	return s.inside(dir, name, depth+1)
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// change sets owner and mode of what was looked at, if it still is that.
func (s settler) change(dir int, name string, seen *unix.Stat_t) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return ignoreGone(err)
	}
	defer unix.Close(fd) //nolint:errcheck // it is only a place
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	mode, ok := s.wants(&st)
	if !ok || st.Ino != seen.Ino || st.Dev != seen.Dev {
		return errors.New("it changed while it was handed over")
	}
	err = unix.Fchownat(fd, "", s.pair, s.gid, unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("change its owner: %w; %s", err, ownersHint)
	}
	// A mode cannot be set by such a descriptor, but by its place in /proc.
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
}

// inside brings what is in a directory into order.
func (s settler) inside(dir int, name string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: it is nested too deep", name)
	}
	fd, err := openDir(dir, name, unix.O_RDONLY)
	if err != nil {
		return ignoreGone(err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() //nolint:errcheck // it was only read
	for {
		names, err := f.Readdirnames(256)
		for _, n := range names {
			if time.Now().After(s.until) {
				return fmt.Errorf("%s: there is too much in it for %v", name, maxSettle)
			}
			if err := s.entry(fd, n, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// show lets the pair's group read a directory of the worker's that lies beside
// those of write, and pass through what is above it. What is written there later
// inherits the group. Anything else is readable or is not, and is left alone.
func (s settler) show(write []string, path string) error {
	if len(write) == 0 {
		return nil
	}
	top := filepath.Dir(write[0])
	below, ok := strings.CutPrefix(path, top+"/")
	if !ok || filepath.Clean(path) != path {
		return nil
	}
	dir, err := s.openBelow(filepath.Join(top, "x"))
	if err != nil {
		return err
	}
	names := strings.Split(below, "/")
	for i, name := range names {
		last := i == len(names)-1
		next, err := s.pass(dir, name, last)
		unix.Close(dir) //nolint:errcheck // it is only a place
		if err != nil {
			return ignoreGone(err)
		}
		dir = next
	}
	return unix.Close(dir)
}

// pass lets the pair's group through a directory of the worker's, or read it.
func (s settler) pass(dir int, name string, read bool) (int, error) {
	fd, err := openDir(dir, name, unix.O_RDONLY)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	if int(st.Uid) != s.uid {
		return -1, errors.Join(errors.New("it is not the worker's"), unix.Close(fd))
	}
	mode := uint32(0o710)
	if read {
		mode = 0o2750
	}
	if int(st.Gid) == s.pair && st.Mode&0o7777 == mode {
		return fd, nil
	}
	if read { // for the first time: what is there already
		err = s.showAll(fd, 0)
	}
	// The mode first: who is not of a group may not set its mark.
	err = errors.Join(err, unix.Fchown(fd, -1, s.gid), unix.Fchmod(fd, mode), unix.Fchown(fd, -1, s.pair))
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// showAll lets the pair's group read all that is in a directory of the worker's.
// No child can write there.
func (s settler) showAll(dir, depth int) error {
	if depth > maxDepth {
		return errors.New("it is nested too deep")
	}
	again, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(again), "objects")
	defer f.Close() //nolint:errcheck // it was only read
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(again, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if int(st.Uid) != s.uid {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			fd, err := openDir(again, name, unix.O_RDONLY)
			if err != nil {
				return err
			}
			err = errors.Join(s.showAll(fd, depth+1), unix.Fchmod(fd, 0o2750), unix.Fchown(fd, -1, s.pair), unix.Close(fd))
			if err != nil {
				return err
			}
		case unix.S_IFREG:
			err := errors.Join(unix.Fchownat(again, name, -1, s.pair, unix.AT_SYMLINK_NOFOLLOW), unix.Fchmodat(again, name, 0o440, 0))
			if err != nil {
				return err
			}
		}
	}
	return nil
}
