package debughttp

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Option changes what Handler serves.
type Option func(*handler)

// Title is the page's heading instead of "SQLite leak guard", to tell one
// program's page from another's.
func Title(s string) Option { return func(h *handler) { h.title = s } }

// Handler serves the page, its JSON, its text and the profile of t; nil stands for
// tracker.Default(). Mount it at a path that ends in "/", with or without
// http.StripPrefix. It answers GET and HEAD; nothing can be changed by it unless
// [Control] is given. It panics if an option is nil.
func Handler(t *tracker.Tracker, opts ...Option) http.Handler {
	if t == nil {
		t = tracker.Default()
	}
	h := &handler{tracker: t, title: "SQLite leak guard"}
	for i, o := range opts {
		if o == nil {
			panic(fmt.Sprintf("debughttp: Handler: option %d of %d is nil", i+1, len(opts)))
		}
		o(h)
	}
	return h
}

type handler struct {
	tracker *tracker.Tracker
	title   string
	control *secrets // nil: only what is read is served
}

// How often the page loads itself again, in seconds.
const (
	defaultRefresh = 10
	longestRefresh = 3600
)

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	name := below(r)
	if name == "control" && h.control != nil {
		h.serveControl(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	format := r.URL.Query().Get("format")
	switch {
	case name == "pprof":
		header.Set("Content-Type", "application/octet-stream")
		header.Set("Content-Disposition", `attachment; filename="leakguard.pb.gz"`)
		h.send(w, h.profile)
	case name != "":
		http.NotFound(w, r)
	case format == "json":
		header.Set("Content-Type", "application/json")
		h.send(w, h.snapshot().writeJSON)
	case format == "text":
		header.Set("Content-Type", "text/plain; charset=utf-8")
		h.send(w, func(b *bytes.Buffer) error { _, err := h.tracker.WriteTo(b); return err })
	case format == "" || format == "html":
		header.Set("Content-Type", "text/html; charset=utf-8")
		header.Set("Content-Security-Policy", policy)
		header.Set("Referrer-Policy", "no-referrer")
		h.send(w, h.snapshot().page(refresh(r)).write)
	default:
		http.Error(w, fmt.Sprintf("format=%q: want html, json or text", format), http.StatusBadRequest)
	}
}

// send writes what f makes, as a whole or not at all.
func (h *handler) send(w http.ResponseWriter, f func(*bytes.Buffer) error) {
	h.sendStatus(w, http.StatusOK, f)
}

func (h *handler) sendStatus(w http.ResponseWriter, status int, f func(*bytes.Buffer) error) {
	var b bytes.Buffer
	if err := f(&b); err != nil {
		w.Header().Del("Content-Disposition")
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	w.Write(b.Bytes()) // an error is the client's who has gone
}

// refresh returns after how many seconds the page loads itself again, 0 never.
func refresh(r *http.Request) int {
	n, err := strconv.Atoi(r.URL.Query().Get("refresh"))
	if err != nil || n < 0 {
		return defaultRefresh
	}
	return min(n, longestRefresh)
}

// below returns what of the path is below the place where the handler is
// mounted: "" for the page. Where that is, the pattern of http.ServeMux says.
func below(r *http.Request) string {
	path := r.URL.Path
	_, pattern, _ := strings.Cut(r.Pattern, "/") // behind method and host
	pattern = "/" + pattern
	switch {
	case r.Pattern == "" || strings.ContainsAny(pattern, "{*:"):
		// Another router, or a part of the path that may be anything: the last
		// element must do.
		return path[strings.LastIndexByte(path, '/')+1:]
	case strings.HasPrefix(path, pattern):
		return path[len(pattern):]
	}
	return strings.TrimPrefix(path, "/") // http.StripPrefix
}
