package lint

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRootNeedsNoTelemetry: who imports the driver links nothing of
// OpenTelemetry.
func TestRootNeedsNoTelemetry(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for path := range strings.Lines(string(out)) {
		if strings.Contains(path, "opentelemetry") {
			t.Errorf("the driver links %s", strings.TrimSpace(path))
		}
	}
}
