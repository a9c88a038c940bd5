package debughttp

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

//go:embed control.html
var controlHTML string

var controlTemplate = template.Must(template.Must(pageTemplate.Clone()).New("control").Parse(controlHTML))

// controlPolicy lets the page send its forms to where it came from. It has no script.
var controlPolicy = strings.Replace(policyOf(""), "form-action 'none'", "form-action 'self'", 1)

// Control lets operators act: a second page, at "control" below the first, changes
// mode and limits of a pool, undoes or spares what is held (see tracker.Tracker.Undo
// and Spare), and collects garbage. What is set there beats the environment variable
// LEAKGUARD, DSN, Config and SetPolicy, until the program ends.
//
// Whoever reaches it can roll transactions of the program back. It is off by default,
// and belongs behind authentication. Against pages elsewhere that send its forms from
// an operator's browser it has a secret of the process in each form and in a cookie
// (SameSite=Strict), and refuses what a browser says to come from another origin.
func Control() Option { return func(h *handler) { h.control = secretsOfProcess() } }

// secrets are what a form must bring back: one from the page, one from the browser.
type secrets struct{ token, cookie, name string }

var secretsOfProcess = sync.OnceValue(func() *secrets {
	// Cookies of one host are those of all its ports: programs side by side have
	// different names.
	return &secrets{token: rand.Text(), cookie: rand.Text(), name: "leakguard-" + rand.Text()}
})

// brings reports whether a request is from a page of this process.
func (s *secrets) brings(r *http.Request) bool {
	c, err := r.Cookie(s.name)
	if err != nil {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(c.Value), []byte(s.cookie))&
		subtle.ConstantTimeCompare([]byte(r.PostForm.Get("token")), []byte(s.token)) == 1
}

const (
	maxForm     = 64 << 10        // bytes
	undoPatient = 5 * time.Second // how long a request waits for what it undoes
	maxTargets  = 100             // things held that the page lists
	maxForms    = 10              // pools
)

// serveControl serves the second page, and does what its forms ask for.
func (h *handler) serveControl(w http.ResponseWriter, r *http.Request) {
	done, failed, status := "", "", http.StatusOK
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPost:
		if code, why := h.refuses(w, r); why != "" {
			http.Error(w, why, code)
			return
		}
		var err error
		if done, err = h.act(r); err != nil {
			failed, status = err.Error(), http.StatusConflict
		}
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "only GET, HEAD and POST", http.StatusMethodNotAllowed)
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: h.control.name, Value: h.control.cookie,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	})
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", controlPolicy)
	// Without a referrer a browser hides the form's origin too.
	header.Set("Referrer-Policy", "same-origin")
	h.sendStatus(w, status, func(b *bytes.Buffer) error {
		return controlTemplate.Execute(b, h.controlPage(r.URL.Query().Get("pool"), done, failed))
	})
}

// refuses returns why a form is not accepted, "" if it is.
func (h *handler) refuses(w http.ResponseWriter, r *http.Request) (code int, why string) {
	if err := new(http.CrossOriginProtection).Check(r); err != nil {
		return http.StatusForbidden, "this form comes from another origin: open the page itself"
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return http.StatusBadRequest, "the form cannot be read: " + err.Error()
	}
	if !h.control.brings(r) {
		return http.StatusForbidden, "this form is not of the running program: load the page again (it sets a cookie)"
	}
	return 0, ""
}

// act does what a form asks for, and says what was done.
func (h *handler) act(r *http.Request) (done string, err error) {
	f := r.PostForm
	switch do := f.Get("do"); do {
	case "set":
		return h.set(f.Get("pool"), f)
	case "undo":
		connection, resource := f.Get("connection"), idOf(f.Get("resource"))
		ctx, cancel := context.WithTimeout(r.Context(), undoPatient)
		defer cancel()
		if err := h.tracker.Undo(ctx, connection, resource); err != nil {
			return "", err
		}
		return "undone: " + f.Get("kind") + " on " + connection, nil
	case "spare":
		connection, resource := f.Get("connection"), idOf(f.Get("resource"))
		if err := h.tracker.Spare(connection, resource, cmp.Or(strings.TrimSpace(f.Get("reason")), "spared by an operator")); err != nil {
			return "", err
		}
		return "spared: " + f.Get("kind") + " on " + connection, nil
	case "collect":
		runtime.GC()
		return "garbage collected: what nobody can reach any more is proven now", nil
	default:
		return "", fmt.Errorf("unknown form %q: want set, undo, spare or collect", do)
	}
}

// idOf reads a resource's id; what is none is nobody's.
func idOf(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// set changes what differs from what the page showed: somebody else may have changed
// the rest meanwhile.
func (h *handler) set(pool string, f map[string][]string) (done string, err error) {
	pools := h.tracker.Pools()
	i := slices.IndexFunc(pools, func(p *tracker.Pool) bool { return p.Name() == pool })
	if i < 0 {
		return "", fmt.Errorf("there is no pool %q any more", pool)
	}
	values := make(map[string]string)
	for _, s := range pools[i].Settings() {
		is, was := f["set."+s.Key], f["was."+s.Key]
		if len(is) == 1 && len(was) == 1 && strings.TrimSpace(is[0]) != was[0] {
			values[s.Key] = strings.TrimSpace(is[0])
		}
	}
	if len(values) == 0 {
		return "nothing to change", nil
	}
	if err := pools[i].Operate(values); err != nil {
		return "", err
	}
	return "changed: pool " + pool, nil
}

// control is what the template of the second page shows.
type control struct {
	Title, Time, Token string
	Done, Failed       string // what became of the form that was sent
	Notes              []note
	Only               string // the pool that it is about, "" for all
	Pools              []poolForm
	MorePools          int
	Targets            []target
	MoreTargets        int
}

type poolForm struct {
	Name     string
	Mode     tracker.Setting
	Modes    []string
	Settings []tracker.Setting
	Fixed    bool // mode off: nothing can be changed
}

// target is what can be undone or spared.
type target struct {
	Kind, Connection string
	Resource         uint64
	Age, Idle        string
	Suspect, Busy    bool
	Site, Function   string
	Query, Exempt    string
	Token            string

	leak uint64 // 0: no suspect
}

// controlPage is about all pools, or the one with that name.
func (h *handler) controlPage(only, done, failed string) *control {
	s := h.snapshot()
	c := &control{
		Title: h.title, Time: s.now.Format("2006-01-02 15:04:05 MST"), Token: h.control.token,
		Done: done, Failed: failed, Only: only, Notes: s.environmentNotes(),
	}
	for _, p := range h.tracker.Pools() {
		if only != "" && p.Name() != only {
			continue
		}
		if len(c.Pools) == maxForms {
			c.MorePools++
			continue
		}
		settings := p.Settings()
		form := poolForm{Name: p.Name(), Mode: settings[0], Settings: settings[1:], Fixed: p.Mode() == tracker.Off}
		for m := tracker.Enforce; m < tracker.Off; m++ {
			form.Modes = append(form.Modes, m.String())
		}
		c.Pools = append(c.Pools, form)
	}
	for i := range s.held {
		x := &s.held[i]
		if x.Kind == tracker.KindStatement || only != "" && x.Pool != only {
			continue
		}
		site := x.Site()
		leak := uint64(0)
		if x.Suspect != nil {
			leak = x.Suspect.ID
		}
		c.Targets = append(c.Targets, target{
			leak: leak,
			Kind: x.Kind.String(), Connection: x.ConnectionID, Resource: x.Resource,
			Age: boundText(x.Age, x.AgeAtLeast), Idle: ageText(x.Idle), Suspect: x.Suspect != nil && x.Suspect.Exempt == "", Busy: x.Busy,
			Site: site.String(), Function: site.Function, Query: x.Query, Exempt: x.Exempt, Token: h.control.token,
		})
	}
	// Suspects in the order of the page, then what is held the longest.
	rank := make(map[uint64]int)
	for i, l := range slices.Concat(s.suspects, s.exempt) {
		rank[l.ID] = i - len(s.suspects) - len(s.exempt)
	}
	slices.SortStableFunc(c.Targets, func(a, b target) int { return cmp.Compare(rank[a.leak], rank[b.leak]) })
	if n := len(c.Targets) - maxTargets; n > 0 {
		c.Targets, c.MoreTargets = c.Targets[:maxTargets], n
	}
	return c
}
