package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPrometheus lets a real Prometheus scrape the web service, while the
// service also sends to a real collector as the environment says, and walks
// into its planted leak.
func TestPrometheus(t *testing.T) {
	for _, name := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	for _, check := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		output(t, "../dashboards", "promtool", check...)
	}

	dir := t.TempDir()
	webapp := filepath.Join(dir, "webapp")
	output(t, "../examples/webapp", "go", "build", "-o", webapp, ".")
	c := startCollector(t)
	addr := freeAddr(t)
	env := []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.endpoint,
		"OTEL_SERVICE_NAME=notes",
		"OTEL_METRIC_EXPORT_INTERVAL=500",
		"OTEL_BLRP_SCHEDULE_DELAY=100",
	}
	app := run(t, env, webapp, "-addr", addr, "-db", "file:"+filepath.Join(dir, "notes.db")+
		"?_journal_mode=WAL&_leakguard_name=notes&_leakguard_leak_after=100ms&_leakguard_check_interval=50ms&_leakguard_memory_interval=100ms")
	eventually(t, "the web service", listens(addr))

	server := freeAddr(t)
	config := filepath.Join(dir, "prometheus.yml")
	rules, err := filepath.Abs("../dashboards/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`
global: {scrape_interval: 500ms, evaluation_interval: 500ms}
rule_files: [%s]
scrape_configs:
  - job_name: notes
    static_configs: [{targets: [%s]}]
`, rules, addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"),
		"--web.listen-address="+server, "--log.level=warn")
	p := prometheus{server}
	const leaks = `sum(sqlite_leakguard_leaks_total{db_client_connection_pool_name="notes",sqlite_leakguard_kind="transaction"})`
	// Its series is there before the first leak, so that increase() sees it.
	eventually(t, "the counter", func() error { return p.expect(leaks, "0") })
	for _, bytes := range []string{"sqlite_leakguard_sqlite_memory_bytes", "sqlite_leakguard_connection_memory_bytes", "sqlite_leakguard_wal_size_bytes"} {
		eventually(t, bytes, func() error { return p.expect("count("+bytes+" > 0)", "1") })
	}

	const traceID = "0af7651916cd43dd8448eb211c80319c"
	req, err := http.NewRequest("POST", "http://"+addr+"/import", strings.NewReader("one\n\ntwo\n"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("traceparent", "00-"+traceID+"-b7ad6b7169203331-01")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	eventually(t, "the leak", func() error { return p.expect(leaks, "1") })
	eventually(t, "its end", func() error {
		return p.expect(`sum(sqlite_leakguard_reaped_total{sqlite_leakguard_kind="transaction"})`, "1")
	})
	eventually(t, "the alert", func() error {
		return p.expect(`count(ALERTS{alertname="SQLiteLeak",alertstate="firing",sqlite_leakguard_kind="transaction"})`, "1")
	})
	for _, expr := range exprs(t) {
		if _, err := p.query(expr); err != nil {
			t.Errorf("%s: %v", expr, err)
		}
	}
	for _, name := range named(t) {
		if strings.Contains(name, "_use_time_") { // the service does not ask
			continue
		}
		if v, err := p.query("count(" + name + ")"); err != nil || v == "" {
			t.Errorf("Prometheus has no %s: %v", name, err)
		}
	}

	app.stop() // sends what waits
	c.stop()
	const suspect = "sqlite_leakguard.transaction.suspect"
	found := slices.ContainsFunc(eventsOf(written(t, c.logs))[suspect], func(r record) bool {
		return r.TraceID == traceID && strings.HasSuffix(r.Attributes.get("code.file.path"), "webapp/notes.go")
	})
	if !found {
		t.Errorf("the collector got no %s of the request", suspect)
	}
	if _, ok := metricsOf(written(t, c.metrics))["sqlite_leakguard.leaks"]; !ok {
		t.Error("the collector got no sqlite_leakguard.leaks")
	}
}

// exprs are the queries of the dashboard, for all jobs, instances and pools.
func exprs(t *testing.T) (all []string) {
	t.Helper()
	content, err := os.ReadFile("../dashboards/sqlite-leakguard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatal(err)
	}
	filled := strings.NewReplacer("$__rate_interval", "1m", "$__range", "1h", "$job", ".*", "$instance", ".*", "$pool", ".*")
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, filled.Replace(target.Expr))
		}
	}
	if len(all) == 0 {
		t.Fatal("the dashboard asks nothing")
	}
	return all
}

var metricName = regexp.MustCompile(`\b(?:sqlite_leakguard|db_client)_\w+_(?:total|count|seconds|bytes|active|bucket)\b`)

// named are the metrics that the dashboard and the alerts name.
func named(t *testing.T) []string {
	t.Helper()
	rules, err := os.ReadFile("../dashboards/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	all := metricName.FindAllString(strings.Join(exprs(t), "\n")+string(rules), -1)
	slices.Sort(all)
	return slices.Compact(all)
}

// prometheus is a server's address.
type prometheus struct{ addr string }

// query returns the value of an expression's first series, "" if it has none.
func (p prometheus) query(expr string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Get("http://" + p.addr + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return "", err
	}
	if answer.Status != "success" {
		return "", errors.New(answer.Error)
	}
	if len(answer.Data.Result) == 0 {
		return "", nil
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1]), nil
}

func (p prometheus) expect(expr, want string) error {
	got, err := p.query(expr)
	if err == nil && got != want {
		err = fmt.Errorf("%s is %q, want %q", expr, got, want)
	}
	return err
}
