//go:build cgo

package debughttp_test

import (
	"bytes"
	"context"
	"io"
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

// browse runs the browser once and returns what it prints, and what the page
// made it say on its console: breaches of the policy, for example.
func browse(t *testing.T, browser, url string, args ...string) (out, console string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args = append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--enable-logging=stderr", "--user-data-dir=" + t.TempDir(), "--virtual-time-budget=3000",
	}, append(args, url)...)
	cmd := exec.CommandContext(ctx, browser, args...)
	var text, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", browser, err, &errs)
	}
	for line := range strings.Lines(errs.String()) {
		if strings.Contains(line, ":CONSOLE") {
			console += line
		}
	}
	return text.String(), console
}

// A real browser shows the suspects of a real program, and runs nothing of
// what the program's texts would like to be.
func TestBrowser(t *testing.T) {
	browser := chromium(t)
	tr := tracker.New(tracker.Options{})
	openShop(t, tr)
	mux := http.NewServeMux()
	mux.Handle("/debug/leakguard/", debughttp.Handler(tr))
	server := httptest.NewServer(mux)
	defer server.Close()
	url := server.URL + "/debug/leakguard/?refresh=0"

	dom, console := browse(t, browser, url, "--dump-dom")
	if console != "" {
		t.Errorf("the page is not in order:\n%s", console)
	}
	site := regexp.MustCompile(`<span class="mono site">debughttp/live_test\.go:\d+</span>`)
	if n := len(site.FindAllString(dom, -1)); n != 4 {
		t.Errorf("%d lines are named, want two suspects, what is exempt, and the first again", n)
	}
	wants(t, dom, "<strong>2 suspects</strong>", "forgetOrders", "&lt;script&gt;")
	lacks(t, withoutScript(t, dom), "<script", "<img")
	if title := regexp.MustCompile(`<title>(.*)</title>`).FindString(dom); !strings.Contains(title, "2 suspects") {
		t.Errorf("the title is %s", title)
	}
	if t.Failed() {
		t.Log(dom)
	}

	for _, scheme := range []struct{ name, flag string }{{"light", "1"}, {"dark", "0"}} {
		file := filepath.Join(t.ArtifactDir(), "debughttp-"+scheme.name+".png")
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

// The policy keeps the browser from running what got into a page, and the
// browser says so: its silence above means something.
func TestBrowserObeysPolicy(t *testing.T) {
	browser := chromium(t)
	h := debughttp.Handler(tracker.New(tracker.Options{}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", get(t, h, "/").Header.Get("Content-Security-Policy"))
		io.WriteString(w, `<!DOCTYPE html><title>calm</title><script>document.title="owned"</script><img src="/x.png"><p style="color:red">`)
	}))
	defer server.Close()
	dom, console := browse(t, browser, server.URL, "--dump-dom")
	wants(t, dom, "<title>calm</title>")
	for _, what := range []string{"inline script", "inline style", "x.png"} {
		if !strings.Contains(console, what) {
			t.Errorf("the console says nothing of an %s:\n%s", what, console)
		}
	}
}
