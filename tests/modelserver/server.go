package modelserver

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// Server is the stand-in. Its methods may be called at any time, by anyone.
type Server struct {
	http *httptest.Server
	done chan struct{} // closed when the server ends

	mu       sync.Mutex
	scripts  []*script
	requests []Request
}

// Start runs a server until the test ends. With the environment variables
// ANTHROPIC_BASE_URL set to its URL and any ANTHROPIC_API_KEY, or with
// CLAUDE_CODE_USE_BEDROCK, ANTHROPIC_BEDROCK_BASE_URL and any
// AWS_BEARER_TOKEN_BEDROCK, the CLI talks to it.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", s.messages)
	mux.HandleFunc("POST /v1/messages/count_tokens", s.countTokens)
	mux.HandleFunc("POST /v1/files", func(w http.ResponseWriter, _ *http.Request) { // the service has more to offer
		writeJSON(w, http.StatusOK, map[string]string{"type": "file", "id": "file_modelserver"})
	})
	mux.HandleFunc("POST /model/{model}/invoke", s.messages)
	mux.HandleFunc("POST /model/{model}/invoke-with-response-stream", s.messages)
	s.http = httptest.NewServer(mux)
	tb.Cleanup(func() {
		close(s.done)
		s.http.Close()
	})
	return s
}

// URL is where the server is reached.
func (s *Server) URL() string { return s.http.URL }

// Play sets the turns for instructions that contain match. The same match again
// replaces them.
func (s *Server) Play(match string, turns ...Turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts = slices.DeleteFunc(s.scripts, func(old *script) bool { return old.match == match })
	s.scripts = append(s.scripts, &script{match: match, turns: turns, played: make([]int, len(turns))})
}

// Requests returns what came in so far, in order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Forget drops the requests recorded so far.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

func (s *Server) messages(w http.ResponseWriter, r *http.Request) {
	req, turn, err := s.take(r)
	if err != nil {
		writeError(w, req, Fail(http.StatusBadRequest, "invalid_request_error", "modelserver: "+err.Error()))
		return
	}
	if turn.Gate != nil {
		select {
		case <-turn.Gate.arrive():
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		}
	}
	switch {
	case turn.Status != 0:
		writeError(w, req, turn)
	case turn.Fault != None:
		s.breakOff(w, r, req, turn)
	case req.Stream:
		stream(w, req, turn)
	default:
		writeJSON(w, http.StatusOK, whole(req, turn))
	}
}

// take records a request and finds the turn that answers it.
func (s *Server) take(r *http.Request) (Request, Turn, error) {
	at := time.Now()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return Request{}, Turn{}, err
	}
	req, err := parseRequest(r, body, at)
	if err != nil {
		return req, Turn{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	chosen, answers := choose(s.scripts, req.Messages)
	if chosen != nil {
		req.Script, req.Turn = chosen.match, answers
	}
	s.requests = append(s.requests, req)
	if chosen == nil {
		return req, Turn{}, fmt.Errorf("no script for an instruction like this: %.200q", req.Last())
	}
	turn, ok := chosen.turn(answers)
	if !ok {
		return req, Turn{}, fmt.Errorf("the script %q is over after %d answers", chosen.match, answers)
	}
	return req, turn, nil
}

// countTokens answers with a rough count: four bytes are a token.
func (s *Server) countTokens(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.requests = append(s.requests, Request{Path: r.URL.Path, Header: r.Header.Clone(), Body: body, At: at})
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]int{"input_tokens": len(body) / 4})
}

func writeError(w http.ResponseWriter, req Request, t Turn) {
	maps.Copy(w.Header(), t.Header)
	if req.Bedrock {
		w.Header().Set("X-Amzn-Errortype", t.ErrorType+":http://internal.amazon.com/coral/com.amazon.bedrock/")
		writeJSON(w, t.Status, map[string]string{"message": t.Text})
		return
	}
	writeJSON(w, t.Status, map[string]any{
		"type":       "error",
		"error":      map[string]string{"type": t.ErrorType, "message": t.Text},
		"request_id": "req_modelserver",
	})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}
