//go:build cgo

package debughttp_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// chromium returns a browser without a window. On Debian:
// apt-get install chromium-headless-shell.
func chromium(t *testing.T) string {
	t.Helper()
	names := []string{"chromium-headless-shell", "headless_shell", "chromium", "chromium-browser", "google-chrome"}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("no browser in PATH, wanted one of " + strings.Join(names, ", "))
	return ""
}

// browse runs the browser once and returns what it prints.
func browse(t *testing.T, browser, url string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args = append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--user-data-dir=" + t.TempDir(), "--virtual-time-budget=3000",
	}, append(args, url)...)
	cmd := exec.CommandContext(ctx, browser, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", browser, err, &errs)
	}
	return out.String()
}

// A real browser shows the suspects of a real program, and runs nothing of
// what the program's texts would like to be.
func TestBrowser(t *testing.T) {
	browser := chromium(t)
	tr := tracker.New(tracker.Options{})
	openShop(t, tr)
	mux := http.NewServeMux()
	mux.Handle("/debug/leakguard/", debughttp.Handler(tr, debughttp.ShowSQL()))
	server := httptest.NewServer(mux)
	defer server.Close()
	url := server.URL + "/debug/leakguard/?refresh=0"

	dom := browse(t, browser, url, "--dump-dom")
	site := regexp.MustCompile(`<span class="mono site">debughttp/live_test\.go:\d+</span>`)
	if n := len(site.FindAllString(dom, -1)); n != 3 {
		t.Errorf("%d suspects name their line, want 3", n)
	}
	wants(t, dom, "<strong>3 suspects</strong>", "forgetOrders", "&lt;script&gt;")
	lacks(t, dom, "<script", "<img")
	if title := regexp.MustCompile(`<title>(.*)</title>`).FindString(dom); !strings.Contains(title, "3 suspects") {
		t.Errorf("the title is %s", title)
	}
	if t.Failed() {
		t.Log(dom)
	}

	for _, scheme := range []struct{ name, flag string }{{"light", "1"}, {"dark", "0"}} {
		file := filepath.Join(artifacts(t), "debughttp-"+scheme.name+".png")
		browse(t, browser, url, "--blink-settings=preferredColorScheme="+scheme.flag, "--window-size=1280,1700", "--screenshot="+file)
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < 20_000 {
			t.Errorf("%s has %d bytes: an empty page?", file, info.Size())
		}
		t.Log("screenshot: ", file)
	}
}

// A page that would load something from elsewhere, or run something, says so
// on the browser's console.
func TestBrowserObeysPolicy(t *testing.T) {
	browser := chromium(t)
	tr := tracker.New(tracker.Options{})
	openShop(t, tr)
	h := debughttp.Handler(tr)
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			asked = append(asked, r.URL.Path) // one request after the other
		}
		h.ServeHTTP(w, r)
	}))
	log := filepath.Join(t.TempDir(), "log")
	browse(t, browser, server.URL+"/?refresh=0", "--enable-logging", "--log-file="+log, "--dump-dom")
	server.Close()
	if text, err := os.ReadFile(log); err == nil && bytes.Contains(text, []byte("Content Security Policy")) {
		t.Errorf("the page breaks its own policy:\n%s", text)
	}
	if len(asked) > 0 && fmt.Sprint(asked) != "[/favicon.ico]" {
		t.Errorf("the page loads %q", asked)
	}
}

// artifacts is where screenshots go: kept with go test -artifacts.
func artifacts(t *testing.T) string {
	if dir := os.Getenv("LEAKGUARD_SCREENSHOTS"); dir != "" {
		return dir
	}
	return t.ArtifactDir()
}
