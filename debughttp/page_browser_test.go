//go:build cgo

package debughttp_test

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// probed serves a page with a script of the test behind it, which the policy is made to
// allow beside what it allows anyway.
func probed(t *testing.T, page, policy, script string) (url string) {
	t.Helper()
	sum := sha256.Sum256([]byte(script))
	allowed := strings.Replace(policy, "script-src ", "script-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"' ", 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", allowed)
		io.WriteString(w, strings.Replace(page, "</body>", "<script>"+script+"</script></body>", 1))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// titleOf is what a script of the test made the page's title.
func titleOf(t *testing.T, dom, console string) string {
	t.Helper()
	if console != "" {
		t.Errorf("the page is not in order:\n%s", console)
	}
	m := regexp.MustCompile(`<title>([^<]*)</title>`).FindStringSubmatch(dom)
	if m == nil {
		t.Fatalf("no title in:\n%s", dom)
	}
	return m[1]
}

// leaky is the page of a program that forgets, and its policy.
func leaky(t *testing.T, query string) (page, policy string) {
	inBubble(t, func(s *scene) {
		p := s.pool("shop.db")
		for i := range 4 {
			c := s.open(p, true, "")
			switch i {
			case 0:
				forgetRows(c, "SELECT 1", "")
			case 1:
				c.BeginTx("BEGIN", "")
			case 2:
				deep(1, c, "SELECT 2")
				c.OpenStatement(new(tracker.Resource), "SELECT 3", "")
			}
		}
		pass(6 * time.Minute)
		h := debughttp.Handler(s.Tracker)
		page, policy = body(t, h, query), get(t, h, query).Header.Get("Content-Security-Policy")
	})
	return page, policy
}

// What was unfolded is so when the page has loaded itself again, and what was folded is
// folded; what nobody touched is as the page has it.
func TestFoldsSurviveReload(t *testing.T) {
	browser := chromium(t)
	page, policy := leaky(t, "/?refresh=0")
	url := probed(t, page, policy, `
const loads = Number(sessionStorage.getItem("loads") || 0) + 1;
sessionStorage.setItem("loads", loads);
const all = [...document.querySelectorAll("#suspects details")];
if (loads === 1) {
	all[0].querySelector("summary").click();
	all[all.length - 1].querySelector("summary").click();
	setTimeout(() => location.reload(), 100); // as the page does, but once
}
document.title = loads + " " + all.map(d => d.open);
`)
	dom, console := browse(t, browser, url, "--dump-dom")
	if got := titleOf(t, dom, console); !regexp.MustCompile(`^2 false,true,(false,)*true$`).MatchString(got) {
		t.Errorf("loads and what is unfolded: %s", got)
	}
	// Each has a name of its own, or one would unfold another.
	seen := make(map[string]bool)
	for _, m := range regexp.MustCompile(`<details([^>]*)>`).FindAllStringSubmatch(page, -1) {
		id := regexp.MustCompile(`id="([^"]+)"`).FindString(m[1])
		if id == "" || seen[id] {
			t.Errorf("<details%s>", m[1])
		}
		seen[id] = true
	}
	// And it is the same at each load.
	again, _ := leaky(t, "/?refresh=0")
	for id := range seen {
		wants(t, again, id)
	}
}

// On a phone nothing is wider than the screen, the lines of the program are on it, and
// the charts' texts are large enough. Nothing else is scrolled than what says so.
func TestPhone(t *testing.T) {
	browser := chromium(t)
	pages := make(map[string]string)
	var policy string
	pages["leaky"], policy = leaky(t, "/?refresh=0")
	inBubble(t, func(s *scene) {
		crowd(s)
		pages["crowd"] = body(t, debughttp.Handler(s.Tracker), "/?refresh=0")
	})
	inBubble(t, func(s *scene) {
		blocked(s, strings.Repeat("without_a_blank", 40))
		pages["blocked"] = body(t, debughttp.Handler(s.Tracker), "/?refresh=0")
	})
	for name, page := range pages {
		t.Run(name, func(t *testing.T) {
			url := probed(t, page, policy, `
for (const d of document.querySelectorAll("details")) d.open = true;
const shown = [...document.querySelectorAll("*")].filter(e => e.getClientRects().length);
const wide = shown.filter(e => !e.closest("thead, .panel") && e.getBoundingClientRect().right > innerWidth + 1);
const lost = [...document.querySelectorAll(".mono, td")].filter(e => e.getClientRects().length && e.getBoundingClientRect().right > innerWidth);
const small = [...document.querySelectorAll("figure text")].filter(e => e.getBoundingClientRect().height < 10);
document.title = [innerWidth, document.documentElement.scrollWidth, wide.length, lost.length, small.length].join(" ");
`)
			dom, console := browse(t, browser, url, "--window-size=390,844", "--dump-dom")
			if got := titleOf(t, dom, console); got != "390 390 0 0 0" {
				t.Errorf("width, scroll width, and what is too wide, off the screen, too small: %s", got)
			}
			file := filepath.Join(t.ArtifactDir(), "debughttp-phone-"+name+".png")
			browse(t, browser, url, "--window-size=390,3000", "--screenshot="+file)
			t.Log("screenshot: ", file)
		})
	}
}
