// An unsandboxed runner in Go, of the standard library alone: the peer of bench/plain_runner.py.
//
// It speaks the plain protocol as far as a measurement needs it (welcome, heartbeat, task.request with the operation
// bash, task.result, ping and close) and runs each command with bash -c and nothing around it: no policy, no wall, no
// journal, no record. Never run it anywhere else.
//
//	go_runner -url wss://localhost:PORT/PATH -token TOKEN -ca CA.pem -dir DIRECTORY
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	opcodeText  = 0x1 // RFC 6455, 5.2
	opcodeClose = 0x8
	opcodePing  = 0x9
	opcodePong  = 0xA

	largestFrame    = 64 << 20
	heartbeatPeriod = 30 * time.Second
	defaultLimit    = 120 * time.Second
)

type message struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Payload   json.RawMessage `json:"payload"`
	Timestamp int64           `json:"timestamp"`
}

type taskRequest struct {
	TaskID    string `json:"task_id"`
	Operation string `json:"operation"`
	Args      struct {
		Command string  `json:"command"`
		Workdir string  `json:"workdir"`
		Timeout float64 `json:"timeout"`
	} `json:"args"`
}

type bashResult struct {
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
	ExitCode int    `json:"exit_code"`
}

type taskResult struct {
	TaskID   string      `json:"task_id"`
	Success  bool        `json:"success"`
	Result   *bashResult `json:"result,omitempty"`
	Error    string      `json:"error,omitempty"`
	ExitCode *int        `json:"exit_code,omitempty"`
}

type connection struct {
	stream  io.Writer
	reader  *bufio.Reader
	writing sync.Mutex
}

// dial opens the WebSocket (RFC 6455, 4.1); the token is the query parameter that the plain protocol names.
func dial(address, token, caFile string) (*connection, error) {
	target, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", caFile)
	}
	stream, err := tls.Dial("tcp", target.Host, &tls.Config{RootCAs: roots, ServerName: target.Hostname()})
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	query := url.Values{"token": {token}}
	_, err = fmt.Fprintf(stream, "GET %s?%s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n",
		target.Path, query.Encode(), target.Host, base64.StdEncoding.EncodeToString(nonce))
	if err != nil {
		return nil, err
	}
	reader := bufio.NewReader(stream)
	answer, err := http.ReadResponse(reader, &http.Request{Method: http.MethodGet})
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("the upgrade was answered with %s", answer.Status)
	}
	return &connection{stream: stream, reader: reader}, nil
}

// write sends one masked frame (RFC 6455, 5.3).
func (c *connection) write(opcode byte, payload []byte) error {
	header := []byte{0x80 | opcode}
	switch size := len(payload); {
	case size < 126:
		header = append(header, 0x80|byte(size))
	case size < 1<<16:
		header = binary.BigEndian.AppendUint16(append(header, 0x80|126), uint16(size))
	default:
		header = binary.BigEndian.AppendUint64(append(header, 0x80|127), uint64(size))
	}
	mask := make([]byte, 4)
	if _, err := rand.Read(mask); err != nil {
		return err
	}
	frame := append(append(make([]byte, 0, len(header)+4+len(payload)), header...), mask...)
	for index, value := range payload {
		frame = append(frame, value^mask[index%4])
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.stream.Write(frame)
	return err
}

// read returns one whole frame; a platform's frames are not masked, and the one measured sends no fragments.
func (c *connection) read() (byte, []byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(c.reader, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0]&0x80 == 0 || head[1]&0x80 != 0 {
		return 0, nil, errors.New("a fragment or a masked frame")
	}
	size := uint64(head[1])
	if size >= 126 {
		more := make([]byte, 2)
		if size == 127 {
			more = make([]byte, 8)
		}
		if _, err := io.ReadFull(c.reader, more); err != nil {
			return 0, nil, err
		}
		size = 0
		for _, value := range more {
			size = size<<8 | uint64(value)
		}
	}
	if size > largestFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes", size)
	}
	payload := make([]byte, size)
	_, err := io.ReadFull(c.reader, payload)
	return head[0] & 0x0f, payload, err
}

func (c *connection) say(kind string, payload any) error {
	body, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	now := time.Now()
	frame, err := json.Marshal(message{
		ID: fmt.Sprintf("msg_%x", now.UnixNano()), Type: kind, Payload: body, Timestamp: now.UnixMilli(),
	})
	if err != nil {
		return err
	}
	return c.write(opcodeText, frame)
}

// run carries out one bash task with nothing around the command.
func run(request taskRequest, directory string) taskResult {
	if request.Operation != "bash" {
		return taskResult{TaskID: request.TaskID, Error: "unknown operation: " + request.Operation}
	}
	limit := defaultLimit
	if request.Args.Timeout > 0 {
		limit = time.Duration(request.Args.Timeout * float64(time.Second))
	}
	bounded, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	command := exec.CommandContext(bounded, "bash", "-c", request.Args.Command)
	command.Dir = directory
	if request.Args.Workdir != "" {
		command.Dir = request.Args.Workdir
	}
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	code := command.ProcessState.ExitCode()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return taskResult{TaskID: request.TaskID, Error: err.Error()}
	}
	return taskResult{
		TaskID: request.TaskID, Success: code == 0, ExitCode: &code,
		Result: &bashResult{
			Stdout: strings.ToValidUTF8(stdout.String(), "\uFFFD"), Stderr: strings.ToValidUTF8(stderr.String(), "\uFFFD"), ExitCode: code,
		},
	}
}

func serve(c *connection, directory string) error {
	go func() {
		beat := map[string]any{"worknode_id": "", "name": "go", "labels": []string{}, "version": "go"}
		for ; ; time.Sleep(heartbeatPeriod) {
			if err := c.say("heartbeat", beat); err != nil {
				return
			}
		}
	}()
	for {
		opcode, payload, err := c.read()
		if err != nil {
			return err
		}
		switch opcode {
		case opcodePing:
			if err := c.write(opcodePong, payload); err != nil {
				return err
			}
		case opcodeClose:
			return c.write(opcodeClose, payload)
		case opcodeText:
			var heard message
			if err := json.Unmarshal(payload, &heard); err != nil {
				return err
			}
			if heard.Type != "task.request" {
				continue
			}
			var request taskRequest
			if err := json.Unmarshal(heard.Payload, &request); err != nil {
				return err
			}
			go func() {
				if err := c.say("task.result", run(request, directory)); err != nil {
					log.Print(err)
				}
			}()
		}
	}
}

func main() {
	address := flag.String("url", "", "the platform's WebSocket, wss://HOST:PORT/PATH")
	token := flag.String("token", "", "the runner's token")
	caFile := flag.String("ca", "", "the platform's certificate authority, PEM")
	directory := flag.String("dir", ".", "where commands start")
	flag.Parse()
	c, err := dial(*address, *token, *caFile)
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(c, *directory); err != nil && !errors.Is(err, io.EOF) {
		log.Fatal(err)
	}
}
