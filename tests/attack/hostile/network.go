package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

const patience = 3 * time.Second

// networkAttacks are those on what can be reached.
func networkAttacks() []attack {
	return []attack{
		{"loopback", func(p plan) (string, error) { return hello("tcp", p.Upstream) }},
		{"metadata", func(p plan) (string, error) { return hello("tcp", p.Metadata) }},
		{"outside_tcp", func(p plan) (string, error) { return hello("tcp", p.Outside) }},
		{"outside_udp", func(p plan) (string, error) { return hello("udp", p.Outside) }},
		{"unix_socket", func(p plan) (string, error) { return hello("unix", p.Socket) }},
		{"abstract_socket", func(p plan) (string, error) { return hello("unix", "@"+p.Abstract) }},
		{"proxy_loopback", func(p plan) (string, error) { return byProxy(p.Upstream) }},
		{"proxy_metadata", func(p plan) (string, error) { return byProxy(p.Metadata) }},
		{"proxy_outside", func(p plan) (string, error) { return byProxy(p.Outside) }},
	}
}

// hello says something and waits for an answer.
func hello(network, address string) (string, error) {
	c, err := dial(network, address)
	if err != nil {
		return "", err
	}
	defer c.Close() //nolint:errcheck // the attack is over
	return ask(c, "GET / HTTP/1.0\r\nHost: x\r\n\r\n")
}

func dial(network, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: patience}).DialContext(context.Background(), network, address)
}

func ask(c net.Conn, request string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	io.WriteString(c, request) //nolint:errcheck // who answers need not have listened
	line, err := bufio.NewReader(c).ReadString('\n')
	if line == "" {
		return "", errors.Join(errors.New("no answer"), err)
	}
	return strings.TrimSpace(line), nil
}

// byProxy asks the proxy that npm and curl are told of.
func byProxy(target string) (string, error) {
	text := os.Getenv("HTTPS_PROXY")
	if text == "" {
		text = os.Getenv("https_proxy")
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "", errors.New("there is no proxy")
	}
	auth := ""
	if u.User != nil {
		auth = "Proxy-Authorization: Basic " + basic(u.User) + "\r\n"
	}
	c, err := dial("tcp", u.Host)
	if err != nil {
		return "", err
	}
	defer c.Close() //nolint:errcheck // the attack is over
	line, err := ask(c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n"+auth+"\r\n")
	if err == nil && !strings.Contains(line, " 200") {
		err = errors.New("refused: " + line)
	}
	return line, err
}

// gatewayAttacks are those on the way to the model.
func gatewayAttacks() []attack {
	own, token := os.Getenv("ANTHROPIC_BASE_URL"), os.Getenv("ANTHROPIC_API_KEY")
	return []attack{
		{"gateway_own_call", func(plan) (string, error) { return call(own, token, "", `"max_tokens":1`) }},
		{"gateway_without_token", func(plan) (string, error) { return call(own, "guess", "", `"max_tokens":1`) }},
		{"gateway_other_model", func(plan) (string, error) { return call(own, token, "claude-opus-4-1", `"max_tokens":1`) }},
		{"gateway_server_tool", func(plan) (string, error) {
			return call(own, token, "", `"max_tokens":1,"tools":[{"type":"web_fetch_20250910","name":"web_fetch"}]`)
		}},
		{"gateway_mcp", func(plan) (string, error) {
			return call(own, token, "", `"max_tokens":1,"mcp_servers":[{"type":"url","url":"https://example.com","name":"x"}]`)
		}},
		{"gateway_other_path", func(plan) (string, error) {
			return request(own, token, "POST /v1/files HTTP/1.0", "{}")
		}},
		{"gateway_other_job", func(p plan) (string, error) { return call(p.VictimURL, p.VictimToken, "", `"max_tokens":1`) }},
		{"gateway_token_of_other_job", func(p plan) (string, error) { return call(own, p.VictimToken, "", `"max_tokens":1`) }},
		{"gateway_remember", func(p plan) (string, error) { // for the build
			b, err := json.Marshal([]string{own, token, os.Getenv("ANTHROPIC_MODEL")})
			if err != nil {
				return "", err
			}
			return "kept", os.WriteFile(p.Out+".gateway", b, 0o666)
		}},
	}
}

func gatewayAfterAgent(p plan) (string, error) {
	b, err := os.ReadFile(p.Out + ".gateway")
	if err != nil {
		return "", err
	}
	var kept []string
	if err := json.Unmarshal(b, &kept); err != nil {
		return "", err
	}
	return call(kept[0], kept[1], "", `"max_tokens":1`)
}

const model = "claude-sonnet-4-5-20250929"

func call(base, token, otherModel, rest string) (string, error) {
	m := model
	if otherModel != "" {
		m = otherModel
	}
	return request(base, token, "POST /v1/messages HTTP/1.0", fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hostile call"}],%s}`, m, rest))
}

func request(base, token, line, body string) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("there is no gateway: %q", base)
	}
	c, err := dial("tcp", u.Host)
	if err != nil {
		return "", err
	}
	defer c.Close() //nolint:errcheck // the attack is over
	answer, err := ask(c, fmt.Sprintf("%s\r\nHost: %s\r\nContent-Type: application/json\r\nX-Api-Key: %s\r\nAnthropic-Version: 2023-06-01\r\nContent-Length: %d\r\n\r\n%s",
		line, u.Host, token, len(body), body))
	if err == nil && !strings.Contains(answer, " 200") {
		err = errors.New("refused: " + answer)
	}
	return answer, err
}
