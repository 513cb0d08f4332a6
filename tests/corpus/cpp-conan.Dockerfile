FROM conanio/gcc11-ubuntu16.04:1.59.0
USER root
COPY conanfile.txt /app/
WORKDIR /app/build
RUN conan install .. --build=missing -s compiler.libcxx=libstdc++11
COPY CMakeLists.txt src/ /app/
RUN cmake .. -DCMAKE_TOOLCHAIN_FILE=conan_toolchain.cmake && cmake --build .
