# results.gp — draws the curves of the group scale as one picture.
#
#   gnuplot -e "data='DIR'; picture='FILE.svg'" results.gp
#
# DIR has SERIES.dat as bench_optimd --curves writes them: a block for each quantity, of
# which the first two are drawn. A series that was not measured leaves its panel empty.

set terminal svg size 900,560 font 'sans,11' background '#ffffff'
set output picture
set multiplot layout 2,3
set logscale x
set format x '%.0s%c'
set yrange [0:3]
set grid ytics lc rgb '#dddddd'
set border 3 lc rgb '#888888'
set tics nomirror textcolor rgb '#333333'
set key top left samplen 2
set bars 0.5
set samples 2

array name[6] = ['model-size', 'tensors-of-256', '25-6-million-in', \
    'round-of-1-million', 'idle', 'update']
array colour[2] = ['#0072B2', '#D55E00']
array first[6] = ['time', 'time', 'time', 'time', 'p50', 'time']
array second[6] = ['processor time', 'processor time', 'processor time', \
    'processor time', 'p99', '']
array caption[6] = ['each parameter, by model size', 'each tensor of 256, by tensors', \
    'each of 25.6 M parameters, by tensors', 'each gradient, by workers', \
    'each push, by idle connections', 'each parameter, by threads']

do for [i = 1:6] {
    file = data . '/' . name[i] . '.dat'
    there = system('test -s "' . file . '" && echo 1')
    set title caption[i]
    last = second[i] eq '' ? 0 : 1
    if (there eq '1') {
        plot for [block = 0:last] file index block using 1:2 with linespoints lw 2 \
                 pt 7 ps 0.5 lc rgb colour[block + 1] \
                 title block == 0 ? first[i] : second[i], \
             file index 0 using 1:2:3:4 with yerrorbars pt 7 ps 0.5 lc rgb colour[1] notitle, \
             1 with lines lc rgb '#888888' notitle
    } else {
        plot 1 with lines lc rgb '#888888' title 'not measured'
    }
}
unset multiplot
