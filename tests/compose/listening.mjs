// Exits with 0 if somebody listens on each of these ports of 127.0.0.1.
import net from 'node:net'

for (const port of process.argv.slice(2)) {
	const socket = net.connect(Number(port), '127.0.0.1', () => socket.destroy())
	socket.on('error', err => {
		console.error(err.message)
		process.exit(1)
	})
}
