package leakguard

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

// All descriptors of the process are in use, by sockets, say.
func TestFaultDescriptors(t *testing.T) {
	dir, ok := apart(t, nil)
	if !ok {
		return
	}
	limit := syscall.Rlimit{Cur: 64, Max: 64}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	use := func(r *faultRun) {
		for {
			f, err := os.Open(os.DevNull)
			if err != nil {
				return
			}
			r.ballast = append(r.ballast, f)
		}
	}
	fault{
		wal:    true, // a rollback journal is a file of its own
		strike: use, goOn: use,
		mend: func(r *faultRun) {
			for _, f := range r.ballast {
				r.ok(f.Close())
			}
		},
	}.run(t, dir)
}

// nobody is a user who may do nothing.
const nobody = 65534

// unprivileged gives the process's rights up, and the folder to whom it is then.
func unprivileged(t *testing.T, dir string) {
	t.Helper()
	for _, f := range []func() error{
		func() error { return os.Chown(dir, nobody, nobody) },
		func() error { return syscall.Setgroups(nil) },
		func() error { return syscall.Setgid(nobody) },
		func() error { return syscall.Setuid(nobody) },
	} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
}

// What the program may read and write is taken from it once it has its
// connections, as by a daemon that gives its rights up.
func TestFaultPermission(t *testing.T) {
	if os.Getuid() != 0 && os.Getenv(apartKey) == "" {
		t.Skip("permissions mean nothing to this test's user, and only root can become another")
	}
	dir, ok := apart(t, nil)
	if !ok {
		return
	}
	unprivileged(t, dir)
	again := func(r *faultRun) {
		r.ok(os.Chmod(r.path("data"), 0o700))
		r.ok(os.Chmod(r.path("data/app.db"), 0o600))
	}
	for name, f := range map[string]fault{
		"file":   {wal: true, journal: true, strike: func(r *faultRun) { r.ok(os.Chmod(r.path("data/app.db"), 0)) }, mend: again},
		"folder": {wal: true, strike: func(r *faultRun) { r.ok(os.Chmod(r.path("data"), 0)) }, mend: again},
		"-wal":   {wal: true, journal: true, strike: func(r *faultRun) { r.withdraw("data/app.db-wal") }},
		"-shm":   {wal: true, journal: true, strike: func(r *faultRun) { r.withdraw("data/app.db-shm") }},
		// The -shm could not be made again.
		"folder read-only": {wal: true, strike: func(r *faultRun) { r.ok(os.Chmod(r.path("data"), 0o500)) }, mend: again},
		"folder read-only, no -shm": {wal: true, strike: func(r *faultRun) {
			os.Remove(r.path("data/app.db-shm")) // with a rollback journal there is none
			r.ok(os.Chmod(r.path("data"), 0o500))
		}, mend: again},
	} {
		t.Run(name, func(t *testing.T) { f.run(t, filepath.Join(dir, name)) })
	}
}

// withdraw takes the right to a file, if there is one.
func (r *faultRun) withdraw(name string) {
	if err := os.Chmod(r.path(name), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
}

// The disk is full, and is not any more.
func TestFaultDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a small disk is mounted for it, which only root can do")
	}
	dir, ok := apart(t, func(cmd *exec.Cmd) { // what it mounts goes with it
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	})
	if !ok {
		return
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no disk can be mounted: %v", err)
	}
	fault{
		strike: func(r *faultRun) {
			f, err := os.Create(r.path("ballast"))
			r.ok(err)
			for _, n := range []int{4096, 1} {
				for err = nil; err == nil; {
					_, err = f.Write(make([]byte, n))
				}
			}
			r.ok(f.Close())
		},
		mend: func(r *faultRun) { r.ok(os.Remove(r.path("ballast"))) },
	}.run(t, dir)
}

// No file can grow, and then they can. SQLite has another error for that.
func TestFaultFilesCannotGrow(t *testing.T) {
	dir, ok := apart(t, nil)
	if !ok {
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	const most = 1 << 20
	limit := func(n uint64) func(r *faultRun) {
		return func(r *faultRun) { r.ok(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: most})) }
	}
	fault{prepare: limit(most), strike: limit(1), mend: limit(most)}.run(t, dir)
}
