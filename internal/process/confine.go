package process

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// dropPrivileges gives up every capability of this thread, and the ways to get
// one: a worker that is root has children that are not.
func dropPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("ambient capabilities: %w", err)
	}
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			break // that was the last; or we may not, and no_new_privs keeps us from getting one
		}
		if err != nil {
			return fmt.Errorf("bounding set: %w", err)
		}
	}
	var none [2]unix.CapUserData
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}

// filterCalls refuses to this thread what neither Landlock nor namespaces see: sockets that are
// neither TCP nor, if unixToo says so, of the unix kind; TCP that connects while
// it sends; and rings that do the same without a system call. And what one process
// of a user may do to another: set its limits, share memory and queues with it.
func filterCalls(unixToo bool) error {
	filter, err := callFilter(unixToo)
	if err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}                                                    //nolint:gosec // it is some thirty instructions
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil { //nolint:gosec // the kernel takes it by address
		return fmt.Errorf("filter of system calls: %w", err)
	}
	return nil
}

// A filter is a program that looks at struct seccomp_data, of which these are the
// offsets; an argument's lower half is at 16+8n.
const (
	callNumber = 0
	callArch   = 4
	callArgs   = 16
)

func callFilter(unixToo bool) ([]unix.SockFilter, error) {
	arch, ok := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if !ok {
		return nil, errors.New("filter of system calls: it knows amd64 and arm64 only")
	}
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	arg := func(n uint32) unix.SockFilter { return load(callArgs + 8*n) }
	answer := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	// A test skips as many instructions as it says if it does not hold.
	test := func(op uint16, k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jf: skip}
	}
	is := func(k uint32, skip uint8) unix.SockFilter { return test(unix.BPF_JEQ, k, skip) }
	allow := answer(unix.SECCOMP_RET_ALLOW)
	deny := func(errno unix.Errno) unix.SockFilter { return answer(unix.SECCOMP_RET_ERRNO | uint32(errno)) } //nolint:gosec // it is small
	onUnix := deny(unix.EACCES)
	if unixToo {
		onUnix = allow
	}
	// fastOpen is the check of a call that sends, with its flags in argument n.
	fastOpen := func(call, n uint32) []unix.SockFilter {
		return []unix.SockFilter{
			is(call, 4),
			arg(n), test(unix.BPF_JSET, unix.MSG_FASTOPEN, 1), deny(unix.EOPNOTSUPP), allow,
		}
	}
	f := []unix.SockFilter{
		load(callArch), is(arch, 1),
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 1},
		deny(unix.ENOSYS),
		load(callNumber),
		test(unix.BPF_JGE, 0x40000000, 1), deny(unix.ENOSYS), // another numbering on amd64
		is(unix.SYS_IO_URING_SETUP, 1), deny(unix.ENOSYS),
		is(unix.SYS_PRLIMIT64, 4), arg(0), is(0, 1), allow, deny(unix.EPERM), // its own limits, and nobody else's
	}
	// What belongs to a user and not to a process: segments, queues and semaphores.
	for _, call := range []uint32{
		unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_MSGGET, unix.SYS_MSGSND, unix.SYS_MSGRCV, unix.SYS_MSGCTL,
		unix.SYS_SEMGET, unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP, unix.SYS_SEMCTL, unix.SYS_MQ_OPEN,
	} {
		f = append(f, is(call, 1), deny(unix.EACCES))
	}
	f = append(f, fastOpen(unix.SYS_SENDTO, 3)...)
	f = append(f, fastOpen(unix.SYS_SENDMSG, 2)...)
	f = append(f, fastOpen(unix.SYS_SENDMMSG, 3)...)
	jump := func(n uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: n} }
	equal := func(k uint32, then, otherwise uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: then, Jf: otherwise}
	}
	return append(f,
		is(unix.SYS_SOCKET, 1), jump(1), allow,
		arg(0),
		is(unix.AF_UNIX, 1), onUnix,
		is(unix.AF_NETLINK, 1), allow,
		equal(unix.AF_INET, 1, 0), equal(unix.AF_INET6, 0, 6),
		arg(1), unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf}, equal(unix.SOCK_STREAM, 0, 3),
		arg(2), equal(0, 2, 0), equal(unix.IPPROTO_TCP, 1, 0),
		deny(unix.EACCES), allow,
	), nil
}
