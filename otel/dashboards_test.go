package otel

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// promNames returns what Prometheus makes of the documented metrics, of which
// some have further series, and of the attributes:
// https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
func promNames(t *testing.T) (metrics, series, labels []string) {
	t.Helper()
	for _, row := range tables(t)["name instrument"] {
		name := strings.ReplaceAll(row[0], ".", "_")
		name += map[string]string{"s": "_seconds", "By": "_bytes"}[row[2]]
		switch row[1] {
		case "Counter":
			name += "_total"
		case "Histogram":
			series = append(series, name+"_count", name+"_sum")
			name += "_bucket"
		}
		metrics = append(metrics, name)
		if len(row) > 3 {
			for _, attr := range strings.Split(row[3], ", ") {
				labels = append(labels, strings.ReplaceAll(attr, ".", "_"))
			}
		}
	}
	return metrics, append(series, metrics...), labels
}

var promName = regexp.MustCompile(`\b(?:sqlite_leakguard|db_client)_\w+`)

// TestDashboards: the dashboard and the alert rules name metrics and labels
// that are emitted and no others, and the dashboard shows every metric.
// TestDocumentedMetrics compares the documentation with what is emitted.
func TestDashboards(t *testing.T) {
	metrics, series, labels := promNames(t)
	for _, file := range []string{"sqlite-leakguard.json", "alerts.yml"} {
		content, err := os.ReadFile("../dashboards/" + file)
		if err != nil {
			t.Fatal(err)
		}
		names := promName.FindAllString(string(content), -1)
		slices.Sort(names)
		names = slices.Compact(names)
		for _, name := range names {
			if !slices.Contains(series, name) && !slices.Contains(labels, name) {
				t.Errorf("%s names %s, which is neither a metric nor a label", file, name)
			}
		}
		for _, name := range metrics {
			if strings.HasSuffix(file, ".json") && !slices.Contains(names, name) {
				t.Errorf("%s does not show %s", file, name)
			}
		}
	}
}

// TestDashboardIsWhole: Grafana wants panels with ids of their own, side by
// side, each with something to show.
func TestDashboardIsWhole(t *testing.T) {
	content, err := os.ReadFile("../dashboards/sqlite-leakguard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Title, UID string
		Panels     []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatal(err)
	}
	ids := make(map[int]bool)
	cells := make(map[[2]int]string)
	for _, p := range d.Panels {
		if p.ID == 0 || ids[p.ID] || p.Title == "" {
			t.Errorf("panel %q has the id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && (len(p.Targets) == 0 || p.Targets[0].Expr == "") {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		g := p.GridPos
		if g.X+g.W > 24 || g.W == 0 || g.H == 0 {
			t.Errorf("panel %q is at %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other, taken := cells[[2]int{x, y}]; taken {
					t.Fatalf("panel %q lies over %q", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
	}
	if d.Title == "" || d.UID == "" || len(d.Panels) == 0 {
		t.Error("the dashboard is empty")
	}
}
