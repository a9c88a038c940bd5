package integration

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is for whole programs to come up, work and end.
const patience = 60 * time.Second

// eventually polls a real process.
func eventually(t *testing.T, what string, done func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := done()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// freeAddr is a port of this machine that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func listens(addr string) func() error {
	return func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}
}

// process is a program under test; stop ends it as an operator would.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  lockedBuffer
	once sync.Once
}

func run(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...)}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

// wait lets it end by itself.
func (p *process) wait() {
	p.t.Helper()
	p.end(3 * patience)
}

func (p *process) stop() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.end(patience)
}

func (p *process) end(within time.Duration) {
	p.t.Helper()
	p.once.Do(func() {
		kill := time.AfterFunc(within, func() { p.cmd.Process.Kill() })
		defer kill.Stop()
		if err := p.cmd.Wait(); err != nil || p.t.Failed() {
			p.t.Logf("%s: %v\n%s", filepath.Base(p.cmd.Path), err, p.out.String())
		}
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			p.t.Errorf("%s ended with %d", filepath.Base(p.cmd.Path), code)
		}
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// output runs a command to its end.
func output(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", name, err, out, &errs)
	}
	return strings.TrimSpace(string(out))
}

// collector is a real OpenTelemetry Collector.
type collector struct {
	*process
	endpoint      string
	metrics, logs string // files
}

const collectorConfig = `
receivers:
  otlp:
    protocols:
      http:
        endpoint: %s
exporters:
  file/metrics:
    path: %s
  file/logs:
    path: %s
  file/traces:
    path: %s
service:
  telemetry:
    metrics:
      level: none
  pipelines:
    metrics:
      receivers: [otlp]
      exporters: [file/metrics]
    logs:
      receivers: [otlp]
      exporters: [file/logs]
    traces:
      receivers: [otlp]
      exporters: [file/traces]
`

func startCollector(t *testing.T) *collector {
	t.Helper()
	binary := os.Getenv("LEAKGUARD_COLLECTOR")
	if binary == "" {
		binary = output(t, "..", "bash", ".ci/collector")
	}
	dir := t.TempDir()
	addr := freeAddr(t)
	c := &collector{
		endpoint: "http://" + addr,
		metrics:  filepath.Join(dir, "metrics.json"),
		logs:     filepath.Join(dir, "logs.json"),
	}
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, collectorConfig, addr, c.metrics, c.logs, filepath.Join(dir, "traces.json")), 0o600); err != nil {
		t.Fatal(err)
	}
	c.process = run(t, nil, binary, "--config", config)
	eventually(t, "the collector", listens(addr))
	return c
}
