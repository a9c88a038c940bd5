package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"strings"
)

// notes is the service's one table.
type notes struct{ db *sql.DB }

func openNotes(ctx context.Context, db *sql.DB) (*notes, error) {
	_, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
	return &notes{db}, err
}

func (n *notes) list(w http.ResponseWriter, r *http.Request) {
	rows, err := n.db.QueryContext(r.Context(), "SELECT text FROM notes ORDER BY id")
	if err != nil {
		fail(w, err)
		return
	}
	defer rows.Close()
	var page strings.Builder
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			fail(w, err)
			return
		}
		page.WriteString(text + "\n")
	}
	if err := rows.Err(); err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, page.String())
}

func (n *notes) add(w http.ResponseWriter, r *http.Request) {
	text := r.FormValue("text")
	if text == "" {
		http.Error(w, "text is empty", http.StatusBadRequest)
		return
	}
	if _, err := n.db.ExecContext(r.Context(), "INSERT INTO notes (text) VALUES (?)", text); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// importLines makes a note of each line, of all or of none. An import goes on
// when its client has gone.
func (n *notes) importLines(w http.ResponseWriter, r *http.Request) {
	ctx := context.WithoutCancel(r.Context())
	tx, err := n.db.BeginTx(ctx, nil)
	if err != nil {
		fail(w, err)
		return
	}
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if lines.Text() == "" {
			// The planted leak: nobody rolls back, and the write lock stays.
			http.Error(w, "a line is empty", http.StatusBadRequest)
			return
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO notes (text) VALUES (?)", lines.Text()); err != nil {
			tx.Rollback()
			fail(w, err)
			return
		}
	}
	if err := tx.Commit(); err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

func fail(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}
