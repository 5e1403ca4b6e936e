package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// client is one keep-alive connection of the load: HTTP/1.1, as little of it as our servers' answers need, so that the
// load leaves its processor to the issuer.
type client struct {
	conn *tls.Conn
	in   *bufio.Reader
	body []byte
}

// answerTimeout is how long the load waits for one answer.
const answerTimeout = 20 * time.Second

func dial(ctx context.Context, address string, config *tls.Config) (*client, error) {
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn.(*tls.Conn), in: bufio.NewReaderSize(conn, 16<<10)}, nil
}

// do sends a whole request and returns the answer. The body is good until the next call.
func (c *client) do(request []byte) (status int, body []byte, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return 0, nil, err
	}
	if _, err := c.conn.Write(request); err != nil {
		return 0, nil, err
	}
	status, length, err := readHead(c.in)
	if err != nil {
		return 0, nil, err
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	_, err = io.ReadFull(c.in, c.body)
	return status, c.body, err
}

const maxAnswerBytes = 1 << 20

// readHead reads a status line and header fields (RFC 9112 section 4). An answer without a length is an error.
func readHead(in *bufio.Reader) (status, length int, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < len("HTTP/1.1 200\r\n") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, 0, errors.New("answer: no status line of HTTP/1.1")
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, errors.New("answer: no status")
	}
	length = -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil || length < 0 || length > maxAnswerBytes {
				return 0, 0, errors.New("answer: length out of range")
			}
		}
	}
	if length < 0 {
		return 0, 0, fmt.Errorf("answer: status %d without a length", status)
	}
	return status, length, nil
}

// handshake connects, does a full handshake, and says good-bye. It returns when the server has closed: in TLS 1.3 a
// client is done before the server has looked at its certificate (RFC 8446 section 2).
func handshake(ctx context.Context, address string, config *tls.Config) error {
	c, err := dial(ctx, address, config)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := errors.Join(c.conn.SetDeadline(time.Now().Add(answerTimeout)), c.conn.CloseWrite()); err != nil {
		return err
	}
	if _, err := c.in.ReadByte(); err != io.EOF {
		return fmt.Errorf("handshake: want the server's good-bye, got %w", errOr(err))
	}
	if s := c.conn.ConnectionState(); s.DidResume || s.Version != tls.VersionTLS13 {
		return errors.New("handshake: not a full one of TLS 1.3")
	}
	return nil
}

func errOr(err error) error {
	if err == nil {
		return errors.New("an answer")
	}
	return err
}
